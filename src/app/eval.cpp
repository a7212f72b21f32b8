// caravan eval: loss and perplexity of a checkpoint over a data file.
#include <fmt/format.h>

#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "caravan/core/error.h"
#include "caravan/core/log.h"
#include "caravan/io/params_json.h"
#include "caravan/train/evaluator.h"
#include "caravan/train/inference_model.h"
#include "caravan/train/run_inputs.h"
#include "commands.h"
#include "compute_device.h"
#include "compute_ranks.h"
#include "failure.h"
#include "machine.h"
#include "model_options.h"
#include "run_checks.h"

namespace caravan::app {
namespace {

struct EvalOptions {
  ModelOptions model;
  std::vector<std::string> data;
  std::vector<std::string> unigram;
  std::int64_t max_seq_len = 512;
  std::int64_t batch_size = 4;
  bool json = false;
};

std::unique_ptr<BatchLoader> open_loader(const EvalOptions& options, const Dataset& dataset,
                                         const OpenedModel& opened) {
  const LoaderOptions loading{.batch_size = options.batch_size,
                              .max_seq_len = options.max_seq_len,
                              .pad_id = resolve_pad_id(std::nullopt, opened.text, opened.source.config)};
  return std::make_unique<BatchLoader>(dataset, opened.text.encoder.get(), SamplePart{0, dataset.size(), 0},
                                       loading);
}

void run(const EvalOptions& options) {
  if (options.batch_size > std::numeric_limits<std::int32_t>::max() / options.max_seq_len) {
    fail<ConfigError>("--batch-size {} with --max-seq-len {} is more tokens than a batch may have, {}",
                      options.batch_size, options.max_seq_len, std::numeric_limits<std::int32_t>::max());
  }
  const InferenceRanks ranks = model_ranks(options.model);
  OpenedModel opened;
  std::optional<Dataset> samples;
  std::unique_ptr<BatchLoader> data;
  std::unique_ptr<BatchLoader> train;
  agree([&] {
    opened = open(options.model);
    inference_mesh(opened.source.config, ranks.all.size(), ranks.pp);  // throws when they cannot share it
    const auto open_data = [&](const std::vector<std::string>& paths) {
      return open_dataset(paths, opened.source.config.vocab_size, opened.text);
    };
    samples = open_data(options.data);
    data = open_loader(options, *samples, opened);
    train = options.unigram.empty() ? nullptr : open_loader(options, open_data(options.unigram), opened);
  });
  check_agreement(ranks.all, {{"samples", fact_of(samples)},
                              {"tokenizer", fact_of(opened.text.file)},
                              {"model", to_params_json(opened.source.config)}});
  const auto watch_ranks = watch_waiting(options.model.timeout_seconds);
  set_threads(options.model.threads);
  const ComputeDevice device = open_compute_device(options.model.device(), opened.dtype, ranks.all);
  const InferenceModel::Room room{.rows = options.batch_size, .seq_len = options.max_seq_len - 1};
  require_model_memory(device, opened, room, ranks, "lower --batch-size or --max-seq-len");
  const ComputeRanks compute = open_compute_ranks(device, {}, ranks.all);
  const InferenceRanks on_device{compute.all(ranks.all), ranks.pp};
  InferenceModel model(opened.source.config, opened.dtype, device.backend(), room, on_device);
  load_parameters(opened.source, 0, model.context(), whole_shards(model.parameters()));
  const Evaluation result = evaluate([&](const Batch& batch) { return model.loss_sum(batch); }, *data);
  if (ranks.all.rank() != 0) {
    return;
  }
  log::info("{} tokens of {} samples in {:.2f} s", result.tokens, result.samples, result.seconds);

  nlohmann::ordered_json json = {
      {"loss", result.loss}, {"perplexity", result.perplexity}, {"tokens", result.tokens}};
  if (train) {
    json["unigram_loss"] = unigram_loss(*train, *data, opened.source.config.vocab_size);
  }
  if (options.json) {
    fmt::print("{}\n", json.dump());
    return;
  }
  for (const auto& [key, value] : json.items()) {
    fmt::print("{} {}\n", key, value.dump());
  }
}

}  // namespace

void add_eval_command(CLI::App& program) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* command = program.add_subcommand("eval", "Loss and perplexity of a checkpoint over a data file");
  add_model_options(*command, options->model);
  command->add_option("--data", options->data, "Data files or globs: JSONL with text or ids, or plain text")
      ->required();
  command->add_option("--max-seq-len", options->max_seq_len, "Longer samples are truncated")
      ->check(CLI::Range(std::int64_t{2}, std::int64_t{1} << 24))
      ->capture_default_str();
  command->add_option("--batch-size", options->batch_size, "Rows per batch")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--unigram", options->unigram,
                      "Also the loss of token frequencies counted on these files: what context must beat");
  command->add_flag("--json", options->json,
                    "One JSON object on standard output; a perplexity beyond all numbers is null");
  command->footer(
      "Examples:\n"
      "  caravan eval --checkpoint DIR --data test.jsonl --json\n"
      "  caravan eval --checkpoint DIR --data eval.txt --unigram train.txt\n"
      "  mpirun -n 4 caravan eval --checkpoint DIR --data test.jsonl    # the ranks share the model\n"
      "  mpirun -n 4 caravan eval --checkpoint DIR --data test.jsonl --pp 2    # in two stages of two "
      "ranks\n");
  command->callback([options] { run(*options); });
}

}  // namespace caravan::app
