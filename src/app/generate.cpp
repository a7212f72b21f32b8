// caravan generate: continues a prompt or a list of ids from any checkpoint.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <cstdio>
#include <memory>

#include "caravan/core/clock.h"
#include "caravan/core/error.h"
#include "caravan/core/log.h"
#include "caravan/io/params_json.h"
#include "caravan/train/generator.h"
#include "commands.h"
#include "compute_device.h"
#include "compute_ranks.h"
#include "failure.h"
#include "machine.h"
#include "model_options.h"
#include "run_checks.h"

namespace caravan::app {
namespace {

struct GenerateOptions {
  ModelOptions model;
  std::optional<std::string> prompt;
  std::vector<std::int32_t> ids;
  std::int64_t max_new_tokens = 64;
  SamplingOptions sampling;
  bool no_cache = false;
  bool ignore_stop = false;
};

std::vector<std::int32_t> prompt_ids(const GenerateOptions& options, const OpenedModel& opened) {
  if (!options.ids.empty()) {
    for (const std::int32_t id : options.ids) {
      if (id < 0 || id >= opened.source.config.vocab_size) {
        fail<ConfigError>("--ids: {} is outside the model's vocabulary of {}", id,
                          opened.source.config.vocab_size);
      }
    }
    return options.ids;
  }
  const std::optional<Tokenizer>& tokenizer = opened.text.tokenizer;
  if (!tokenizer) {
    fail<ConfigError>(
        "--prompt needs a tokenizer: give --tokenizer, or give --ids{}{}",
        opened.text.why_not.empty() ? "" : "; the checkpoint's cannot be used: ", opened.text.why_not);
  }
  std::vector<std::int32_t> ids = {tokenizer->bos_id()};
  tokenizer->append_ids(*options.prompt, ids);
  return ids;
}

/// Prints tokens as they come: text after a text prompt, ids after ids.
class TokenPrinter {
 public:
  TokenPrinter(const GenerateOptions& options, const OpenedModel& opened) {
    if (options.prompt) {
      fmt::print("{}", *options.prompt);
      decoder_.emplace(*opened.text.tokenizer);
    }
  }
  void print(std::int32_t id) {
    if (decoder_) {
      fmt::print("{}", decoder_->append(id));
    } else {
      fmt::print("{}{}", printed_ > 0 ? " " : "", id);
    }
    ++printed_;
    std::fflush(stdout);
  }
  void finish() { fmt::print("{}\n", decoder_ ? decoder_->finish() : ""); }

 private:
  std::optional<StreamingDecoder> decoder_;
  std::int64_t printed_ = 0;
};

void run(const GenerateOptions& options) {
  if (options.prompt.has_value() != options.ids.empty()) {
    throw ConfigError("give either --prompt TEXT or --ids ID ...");
  }
  if (std::isnan(options.sampling.temperature) || std::isnan(options.sampling.top_p)) {
    throw ConfigError("--temperature and --top-p: nan is no number to sample with");  // passes CLI::Range
  }
  const InferenceRanks ranks = model_ranks(options.model);
  OpenedModel opened;
  std::vector<std::int32_t> prompt;
  agree([&] {
    opened = open(options.model);
    prompt = prompt_ids(options, opened);
    inference_mesh(opened.source.config, ranks.all.size(), ranks.pp);  // throws when they cannot share it
  });
  check_agreement(ranks.all, {{"prompt", fmt::format("{}", fmt::join(prompt, " "))},
                              {"tokenizer", fact_of(opened.text.file)},
                              {"model", to_params_json(opened.source.config)}});
  const auto longest = static_cast<std::int64_t>(prompt.size()) + options.max_new_tokens;
  if (longest > opened.source.config.max_position) {
    log::warning("prompt and --max-new-tokens are {} tokens, beyond the {} positions the model was made for",
                 longest, opened.source.config.max_position);
  }
  const auto watch_ranks = watch_waiting(options.model.timeout_seconds);
  set_threads(options.model.threads);
  const ComputeDevice device = open_compute_device(options.model.device(), opened.dtype, ranks.all);
  const KvCache cache = options.no_cache ? KvCache::kOff : KvCache::kOn;
  require_model_memory(device, opened, {.rows = 1, .seq_len = longest, .cache = cache}, ranks,
                       "lower --max-new-tokens");
  const ComputeRanks compute = open_compute_ranks(device, {}, ranks.all);
  const InferenceRanks on_device{compute.all(ranks.all), ranks.pp};
  Generator generator(
      opened.source.config, opened.dtype, device.backend(), longest, cache,
      [&](const Context& ctx, ParameterSet& parameters) {
        load_parameters(opened.source, 0, ctx, whole_shards(parameters));
      },
      on_device);
  std::vector<std::int32_t> stop_ids;
  if (opened.text.tokenizer && !options.ignore_stop) {
    stop_ids = opened.text.tokenizer->stop_ids();
  }
  std::optional<TokenPrinter> printer;  // every rank makes the same tokens; one shows them
  if (ranks.all.rank() == 0) {
    printer.emplace(options, opened);
  }
  const StopWatch watch;
  const auto made =
      generator.generate(prompt, options.max_new_tokens, stop_ids, options.sampling, [&](std::int32_t id) {
        if (printer) {
          printer->print(id);
        }
        return true;
      });
  if (printer) {
    printer->finish();
  }
  const double seconds = watch.seconds();
  log::info("{} tokens in {:.2f} s, {:.1f} tokens/s", made.size(), seconds,
            seconds > 0 ? static_cast<double>(made.size()) / seconds : 0.0);
}

}  // namespace

void add_generate_command(CLI::App& program) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* command = program.add_subcommand("generate", "Continue a prompt or ids from a checkpoint");
  add_model_options(*command, options->model);
  command->add_option("--prompt", options->prompt,
                      "Text to continue, also an empty one; the begin token is put before it");
  command->add_option("--ids", options->ids, "Token ids to continue, as they are")
      ->delimiter(',')
      ->check([](const std::string& id) { return id.empty() ? std::string("an empty text is no id") : ""; });
  command->add_option("-n,--max-new-tokens", options->max_new_tokens, "At most this many new tokens")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--temperature", options->sampling.temperature, "0: greedy")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  command->add_option("--top-k", options->sampling.top_k, "Sample among the k most likely; 0: all")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 24))
      ->capture_default_str();
  command
      ->add_option("--top-p", options->sampling.top_p,
                   "Sample among the most likely with this total probability")
      ->check(CLI::Range(1e-9, 1.0))
      ->capture_default_str();
  command->add_option("--seed", options->sampling.seed, "Of the draws")->capture_default_str();
  command->add_flag("--no-cache", options->no_cache, "Run the whole row for every token: slow, same tokens");
  command->add_flag("--ignore-stop", options->ignore_stop, "Go on after an end token");
  command->footer(
      "Examples:\n"
      "  caravan generate --checkpoint DIR --prompt 'Two plus two equals' -n 16\n"
      "  caravan generate --checkpoint DIR --ids 17,4,9 -n 8 --temperature 0.8 --top-p 0.9 --seed 1\n"
      "  mpirun -n 2 caravan generate --checkpoint DIR --prompt 'Once'    # the ranks share the model\n"
      "  mpirun -n 4 caravan generate --checkpoint DIR --ids 17,4 --pp 2    # in two stages of two ranks\n");
  command->callback([options] { run(*options); });
}

}  // namespace caravan::app
