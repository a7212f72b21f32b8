// A model in memory, ready to run forward: this rank's part of it, and the ranks that hold it together.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "caravan/train/inference_layout.h"

namespace caravan {

enum class KvCache : std::uint8_t { kOff, kOn };

/// Bytes that a rank will hold where the model computes.
struct InferenceNeeds {
  std::int64_t weight_bytes = 0;
  std::int64_t cache_bytes = 0;    // keys and values
  std::int64_t table_bytes = 0;    // of rotary embedding, and batches
  std::int64_t step_bytes = 0;     // everything that lives inside one call
  std::int64_t message_bytes = 0;  // between stages
};

class InferenceModel {
 public:
  struct Room {
    std::int64_t rows = 1;          // most rows of a batch
    std::int64_t seq_len = 0;       // most tokens of a row
    KvCache cache = KvCache::kOff;  // kOn: keys and values of one row stay, so that a batch can continue it
  };
  /// What a model of this room on a device of this kind will allocate, found on shapes alone. Throws, and is
  /// collective, as the constructor.
  static InferenceNeeds measure(const ModelConfig& config, DType dtype, DeviceKind kind, const Room& room,
                                const InferenceRanks& ranks);
  /// Allocates everything it will ever need; parameters are to be filled. `backend` outlives it. Throws
  /// ConfigError when the ranks cannot hold the model. Collective over the ranks, as every function is that
  /// computes.
  InferenceModel(const ModelConfig& config, DType dtype, Backend& backend, const Room& room,
                 const InferenceRanks& ranks);
  InferenceModel(const InferenceModel&) = delete;
  InferenceModel& operator=(const InferenceModel&) = delete;
  InferenceModel(InferenceModel&&) = delete;
  InferenceModel& operator=(InferenceModel&&) = delete;
  ~InferenceModel() = default;

  ParameterSet& parameters() { return model_->parameters(); }
  Context context() { return executor_->context(); }
  std::int64_t vocab_size() const { return model_->config().vocab_size; }

  /// Σ token losses of `batch`, the same on every rank. Stages work on different rows of it at a time.
  double loss_sum(const Batch& batch);
  /// Logits of tokens [begin, end) of `batch` over the whole vocabulary, row-major, on the ranks of the last
  /// stage; empty on the others. At most as many tokens as a chunk of the loss head.
  std::vector<double> logits(const Batch& batch, std::int64_t begin, std::int64_t end);
  /// The first rank that has logits.
  int sampler() const { return ranks_.size() - layout_.tp().size(); }
  Communicator& ranks() const { return ranks_; }

 private:
  std::unique_ptr<StepExecutor> make_executor(Backend& backend, std::int64_t seq_len);

  Communicator& ranks_;
  InferenceLayout layout_;
  std::int64_t rows_at_a_time_;
  std::int64_t micro_batches_;
  std::unique_ptr<CachedAttention> cached_;  // null without the cache
  std::unique_ptr<Llama> model_;
  std::unique_ptr<ReplicatedStore> store_;
  std::unique_ptr<StepExecutor> executor_;
};

}  // namespace caravan
