#include "caravan/train/evaluator.h"

#include <cmath>

#include "caravan/core/clock.h"
#include "caravan/core/error.h"

namespace caravan {
namespace {

template <class Visit>
void visit_targets(BatchLoader& loader, const Visit& visit) {
  Batch batch;
  loader.start_epoch(0);
  while (loader.next(batch)) {
    for (std::size_t t = 0; t < batch.targets.size(); ++t) {
      if (batch.target_weights[t] > 0.0F) {
        visit(static_cast<std::size_t>(batch.targets[t]));
      }
    }
  }
}

[[noreturn]] void fail_no_target() {
  throw IoError("the evaluation data has no target token: every sample is shorter than two tokens");
}

}  // namespace

Evaluation evaluate(Executor& executor, BatchLoader& loader) {
  return evaluate([&](const Batch& batch) { return executor.loss(batch); }, loader);
}

Evaluation evaluate(const std::function<double(const Batch&)>& loss_sum, BatchLoader& loader) {
  const StopWatch watch;
  Evaluation result;
  double sum = 0.0;
  Batch batch;
  loader.start_epoch(0);
  while (loader.next(batch)) {
    if (batch.valid_tokens > 0) {
      sum += loss_sum(batch);
    }
    result.tokens += batch.valid_tokens;
  }
  if (result.tokens == 0) {
    fail_no_target();
  }
  result.samples = loader.samples();
  result.loss = sum / static_cast<double>(result.tokens);
  if (!std::isfinite(result.loss)) {
    fail<NumericError>("the evaluation loss is {}: the model's weights are not usable",
                       std::abs(result.loss));  // a NaN with its sign would print as -nan
  }
  result.perplexity = std::exp(result.loss);
  result.seconds = watch.seconds();
  return result;
}

double unigram_loss(BatchLoader& train, BatchLoader& eval, std::int64_t vocab_size) {
  std::vector<double> counts(static_cast<std::size_t>(vocab_size), 1.0);
  double total = static_cast<double>(vocab_size);
  visit_targets(train, [&](std::size_t id) {
    counts.at(id) += 1.0;
    total += 1.0;
  });
  double sum = 0.0;
  double tokens = 0.0;
  visit_targets(eval, [&](std::size_t id) {
    sum -= std::log(counts.at(id) / total);
    tokens += 1.0;
  });
  if (tokens == 0.0) {
    fail_no_target();
  }
  return sum / tokens;
}

}  // namespace caravan
