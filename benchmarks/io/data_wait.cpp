// How long training waits for its batches: the steps of a run, with the clock on the loader. The first batch
// of an epoch stands apart; the wait of all others is the median, the longest and the share of the steps'
// time.
//   benchmark_data_wait RUN.yaml EPOCHS [KEY=VALUE ...]     mode synchronous; one rank; KEY=VALUE as --set
//   takes it
#include <algorithm>
#include <string>
#include <vector>

#include "caravan/core/build_info.h"
#include "caravan/core/clock.h"
#include "caravan/core/error.h"
#include "caravan/core/parallel_for.h"
#include "caravan/io/yaml_config.h"
#include "caravan/train/run_inputs.h"
#include "caravan/train/trainer.h"
#include "kernels/cpu/cpu_backend.h"

using namespace caravan;

namespace {

struct Waits {
  std::vector<double> first;   // of each epoch, but the run's first
  std::vector<double> others;  // seconds
  double begin = 0.0;          // the run's first batch
  double steps = 0.0;          // all steps together
  std::int64_t tokens = 0;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0.0 : values[values.size() / 2];
}

double longest(const std::vector<double>& values) {
  return values.empty() ? 0.0 : *std::max_element(values.begin(), values.end());
}

Waits train(const RunInputs& inputs, Backend& backend, std::int64_t epochs) {
  const RunConfig& config = inputs.config;
  const std::int64_t batch_size = config.training.batch_size.value_or(4);
  const LocalBoundary boundary;
  const LocalAttention attention;
  const LocalVocab vocab;
  Llama model(inputs.model.config, {.dtype = config.dtype, .positions = config.data.max_seq_len}, backend,
              {boundary, attention, vocab});
  Trainer trainer(model, backend,
                  {.limits = {.batch = batch_size, .seq_len = config.data.max_seq_len - 1},
                   .optimizer = adamw_options(config)});
  load_parameters(inputs.model, 1, trainer.executor().context(), whole_shards(model.parameters()));
  BatchLoader loader(*inputs.train, inputs.encoder.get(), {0, inputs.train->size(), 0},
                     inputs.train_options(batch_size));
  Waits waits;
  Batch batch;
  for (std::int64_t epoch = 0; epoch < epochs; ++epoch) {
    const StopWatch start;
    loader.start_epoch(epoch);
    const double before_first = start.seconds();  // taking over what was made ahead, or beginning it
    for (std::int64_t number = 0;; ++number) {
      const double before = loader.wait_seconds();
      if (!loader.next(batch)) {
        break;
      }
      const double waited = loader.wait_seconds() - before;
      if (number > 0) {
        waits.others.push_back(waited);
      } else if (epoch > 0) {
        waits.first.push_back(before_first + waited);
      } else {
        waits.begin = before_first + waited;
      }
      const StepResult result = trainer.step(batch, config.optimizer.lr);
      waits.steps += result.seconds;
      waits.tokens += result.tokens;
    }
  }
  return waits;
}

void run(const std::string& path, std::int64_t epochs, const std::vector<std::string>& overrides) {
  const RunInputs inputs = open_inputs(load_run_config(path, overrides), DataUse::kOpen);
  set_cpu_threads(static_cast<int>(inputs.config.threads.value_or(1)));
  const auto backend = make_cpu_backend();
  const Waits waits = train(inputs, *backend, epochs);
  double waited = 0.0;
  for (const double seconds : waits.others) {
    waited += seconds;
  }
  const auto steps = static_cast<double>(waits.others.size() + waits.first.size() + 1);
  fmt::print("commit {}: {} steps of {:.2f} ms, {:.0f} tokens/s, {} thread(s)\n", build_info().commit, steps,
             1e3 * waits.steps / steps, static_cast<double>(waits.tokens) / waits.steps, thread_count());
  fmt::print("wait for a batch within an epoch: median {:.4f} ms, longest {:.3f} ms, {:.4f} % of the steps\n",
             1e3 * median(waits.others), 1e3 * longest(waits.others), 100.0 * waited / waits.steps);
  fmt::print(
      "wait for an epoch's first batch:  median {:.3f} ms, longest {:.3f} ms; for the run's first {:.2f} "
      "ms\n",
      1e3 * median(waits.first), 1e3 * longest(waits.first), 1e3 * waits.begin);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() < 2) {
    fmt::print(stderr, "usage: benchmark_data_wait RUN.yaml EPOCHS [KEY=VALUE ...]\n");
    return 2;
  }
  try {
    run(words[0], std::stoll(words[1]), {words.begin() + 2, words.end()});
  } catch (const std::exception& error) {
    fmt::print(stderr, "benchmark_data_wait: {}\n", error.what());
    return 1;
  }
  return 0;
}
