#include "caravan/train/inference_model.h"

#include "caravan/data/batch_slice.h"
#include "caravan/train/pipeline_executor.h"

namespace caravan {
namespace {

std::int64_t parts_of(std::int64_t whole, std::int64_t part) {
  return (whole + part - 1) / part;
}

Executor::Limits forward_limits(std::int64_t rows, std::int64_t seq_len) {
  return {.batch = rows, .seq_len = seq_len, .pass = Pass::kForward};
}

}  // namespace

InferenceNeeds InferenceModel::measure(const ModelConfig& config, DType dtype, DeviceKind kind,
                                       const Room& room, const InferenceRanks& ranks) {
  const InferenceLayout layout(config, dtype, room.seq_len, ranks);
  const std::int64_t rows = parts_of(room.rows, ranks.pp);
  const std::int64_t micro_batches = parts_of(room.rows, rows);
  const Executor::Limits limits = forward_limits(rows, room.seq_len);
  CountingBackend counting(kind);
  const Llama part(config, layout.model(), counting, layout.ports());
  const StepNeeds step = layout.needs(limits, micro_batches, kind);
  const std::int64_t batches = layout.pp().size() == 1 ? 1 : micro_batches;
  return {.weight_bytes = part.parameters().value_bytes(),
          .cache_bytes = room.cache == KvCache::kOn ? CachedAttention::bytes(dtype, layout.layers().size(),
                                                                             room.seq_len, layout.kv_width())
                                                    : 0,
          .table_bytes = part.rope_bytes() + batches * DeviceBatch(counting, limits.room()).bytes(),
          .step_bytes = step.saved_bytes + step.scratch_bytes,
          .message_bytes = step.message_bytes};
}

InferenceModel::InferenceModel(const ModelConfig& config, DType dtype, Backend& backend, const Room& room,
                               const InferenceRanks& ranks)
    : ranks_(ranks.all),
      layout_(config, dtype, room.seq_len, ranks),
      rows_at_a_time_(parts_of(room.rows, ranks.pp)),
      micro_batches_(parts_of(room.rows, rows_at_a_time_)) {
  if (room.cache == KvCache::kOn) {
    cached_ =
        std::make_unique<CachedAttention>(backend, dtype, layout_.layers(), room.seq_len, layout_.kv_width());
  }
  model_ = std::make_unique<Llama>(config, layout_.model(), backend,
                                   cached_ ? layout_.ports(*cached_) : layout_.ports());
  store_ = std::make_unique<ReplicatedStore>(model_->parameters());
  executor_ = make_executor(backend, room.seq_len);
}

std::unique_ptr<StepExecutor> InferenceModel::make_executor(Backend& backend, std::int64_t seq_len) {
  const Executor::Limits limits = forward_limits(rows_at_a_time_, seq_len);
  // The cache's attention needs values to run; the local one allocates the same on shapes alone.
  const StepNeeds needs = layout_.needs(limits, micro_batches_, backend.kind());
  if (layout_.pp().size() == 1) {
    return std::make_unique<Executor>(*model_, backend, limits, needs,
                                      Executor::Surroundings{.store = store_.get()});
  }
  return std::make_unique<PipelineExecutor>(
      *model_, backend,
      PipelineExecutor::Setup{limits, layout_.pipeline(micro_batches_), layout_.pp(), *store_}, needs);
}

double InferenceModel::loss_sum(const Batch& batch) {
  std::vector<Batch> parts;
  for (std::int64_t begin = 0; begin < batch.batch; begin += rows_at_a_time_) {
    const std::int64_t rows = std::min(rows_at_a_time_, batch.batch - begin);
    parts.push_back(take_rows(batch, begin, rows, batch.seq_len, 0));  // no padding is added
  }
  return layout_.pp().all_reduce_value(executor_->loss_sum(parts));  // the last stage's, and zeros
}

std::vector<double> InferenceModel::logits(const Batch& batch, std::int64_t begin, std::int64_t end) {
  const std::vector<double> columns = executor_->logits(batch, begin, end);
  return columns.empty() ? columns : layout_.whole_rows(columns);
}

}  // namespace caravan
