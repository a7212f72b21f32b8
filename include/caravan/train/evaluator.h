// Loss of a model over a data set, and the unigram baseline it should beat.
#pragma once

#include <functional>

#include "caravan/data/batch_loader.h"
#include "caravan/train/executor.h"

namespace caravan {

struct Evaluation {
  double loss = 0.0;        // sum of all token losses / number of valid target tokens
  double perplexity = 0.0;  // exp(loss)
  std::int64_t tokens = 0;  // valid target tokens
  std::int64_t samples = 0;
  double seconds = 0.0;
};

/// One pass over the loader's data in its order. Throws NumericError when the loss is not finite and IoError
/// when there is no valid target at all.
Evaluation evaluate(Executor& executor, BatchLoader& loader);
/// The same with Σ token losses of a batch from elsewhere (a mesh: the same on every rank).
Evaluation evaluate(const std::function<double(const Batch&)>& loss_sum, BatchLoader& loader);

/// Cross-entropy of the target tokens of `eval` under the token frequencies of the targets of `train`, one
/// added to each of `vocab_size` counts: what a model that knows no context would reach.
double unigram_loss(BatchLoader& train, BatchLoader& eval, std::int64_t vocab_size);

}  // namespace caravan
