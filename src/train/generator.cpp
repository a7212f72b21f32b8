#include "caravan/train/generator.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "caravan/core/counter_rng.h"
#include "caravan/core/error.h"

namespace caravan {
namespace {

std::int32_t argmax(std::span<const double> logits) {
  return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

/// A row (or its continuation) as a batch of one, without targets that count.
Batch row_batch(std::span<const std::int32_t> ids, std::int64_t begin) {
  Batch batch;
  batch.batch = 1;
  batch.seq_len = static_cast<std::int64_t>(ids.size());
  batch.ids.assign(ids.begin(), ids.end());
  batch.targets.assign(ids.size(), 0);
  batch.target_weights.assign(ids.size(), 0.0F);
  batch.index.resize(ids.size());
  std::iota(batch.index.begin(), batch.index.end(), static_cast<std::int32_t>(begin));
  batch.document_start.assign(ids.size(), 0);
  return batch;
}

}  // namespace

std::int32_t choose_token(std::span<const double> logits, const SamplingOptions& options,
                          std::uint64_t index) {
  CARAVAN_CHECK(!logits.empty(), "no logits");
  if (options.temperature <= 0.0) {
    return argmax(logits);
  }
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
  });
  if (options.top_k > 0 && static_cast<std::size_t>(options.top_k) < order.size()) {
    order.resize(static_cast<std::size_t>(options.top_k));
  }
  const double top = logits[static_cast<std::size_t>(order.front())];
  std::vector<double> weights;
  for (const std::int32_t id : order) {
    weights.push_back(std::exp((logits[static_cast<std::size_t>(id)] - top) / options.temperature));
  }
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double kept = 0.0;
  std::size_t count = 0;
  while (count < weights.size() && (count == 0 || kept < options.top_p * total)) {
    kept += weights[count++];
  }
  double left = CounterRng(options.seed, stream_id("generate")).uniform(index) * kept;
  for (std::size_t i = 0; i < count; ++i) {
    left -= weights[i];
    if (left < 0.0) {
      return order[i];
    }
  }
  return order[count - 1];
}

Generator::Generator(const ModelConfig& config, DType dtype, Backend& backend, std::int64_t max_tokens,
                     KvCache cache, const Load& load, const InferenceRanks& ranks)
    : model_(config, dtype, backend, {.rows = 1, .seq_len = max_tokens, .cache = cache}, ranks),
      cache_(cache),
      max_tokens_(max_tokens) {
  load(model_.context(), model_.parameters());
}

std::vector<double> Generator::logits_in_last_stage(std::span<const std::int32_t> ids, std::int64_t begin) {
  CARAVAN_CHECK(!ids.empty() && begin + static_cast<std::int64_t>(ids.size()) <= max_tokens_,
                "{} tokens at place {} of a row of {}", ids.size(), begin, max_tokens_);
  CARAVAN_CHECK(begin == 0 || cache_ == KvCache::kOn, "a continuation needs the cache");
  const auto count = static_cast<std::int64_t>(ids.size());
  return model_.logits(row_batch(ids, begin), count - 1, count);
}

std::vector<double> Generator::next_logits(std::span<const std::int32_t> ids, std::int64_t begin) {
  std::vector<double> logits = logits_in_last_stage(ids, begin);
  const std::int64_t vocab = model_.vocab_size();
  logits.resize(static_cast<std::size_t>(vocab));
  model_.ranks().broadcast(TensorView(logits.data(), DType::kFloat64, {vocab}), model_.sampler());
  return logits;
}

std::vector<std::int32_t> Generator::generate(std::span<const std::int32_t> prompt, std::int64_t count,
                                              std::span<const std::int32_t> stop_ids,
                                              const SamplingOptions& sampling,
                                              const std::function<bool(std::int32_t)>& on_token) {
  std::vector<std::int32_t> row(prompt.begin(), prompt.end());
  const bool continues = cache_ == KvCache::kOn;
  std::size_t fed = 0;
  while (static_cast<std::int64_t>(row.size() - prompt.size()) < count) {
    const std::span<const std::int32_t> feed = std::span(row).subspan(continues ? fed : 0);
    const std::vector<double> logits =
        logits_in_last_stage(feed, static_cast<std::int64_t>(continues ? fed : 0));
    fed = row.size();
    std::int32_t id = 0;
    if (model_.ranks().rank() == model_.sampler()) {
      id = choose_token(logits, sampling, row.size());
    }
    model_.ranks().broadcast(TensorView(&id, DType::kInt32, {1}), model_.sampler());
    if (std::find(stop_ids.begin(), stop_ids.end(), id) != stop_ids.end()) {
      break;
    }
    row.push_back(id);
    if (!on_token(id) || static_cast<std::int64_t>(row.size()) >= max_tokens_) {
      break;
    }
  }
  return {row.begin() + static_cast<std::ptrdiff_t>(prompt.size()), row.end()};
}

}  // namespace caravan
