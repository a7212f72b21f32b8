#include "caravan/parallel/training_store.h"

#include <algorithm>

#include "caravan/ops/elementwise.h"

namespace caravan {
namespace {

bool is_partial_over(const ParameterShard& shard, const std::string& axis) {
  const auto& axes = shard.parameter->spec().shard.partial_axes;
  return shard.parameter->is_trainable() && std::find(axes.begin(), axes.end(), axis) != axes.end();
}

/// The gradients from `first` to `last`, padding between tensors included: they lie side by side.
TensorView flat_gradients(const Parameter& first, const Parameter& last) {
  const TensorView low = first.stored_grad();
  const TensorView high = last.stored_grad();
  const auto* begin = static_cast<const std::byte*>(low.raw());
  const auto* end = static_cast<const std::byte*>(high.raw()) + high.bytes();
  const auto item = static_cast<std::ptrdiff_t>(dtype_bytes(low.dtype()));
  CARAVAN_CHECK(end > begin && (end - begin) % item == 0, "gradients of {} and {} are not in one block",
                first.name(), last.name());
  return {low.raw(), low.dtype(), {(end - begin) / item}, low.device()};
}

}  // namespace

void TrainingStore::reduce_partial_gradients(const std::vector<PartialGroup>& groups) {
  for (const PartialGroup& group : groups) {
    if (group.ranks->size() == 1) {
      continue;
    }
    // In place and all under way together: of a deep model they are more than scratch memory has room for.
    std::vector<Pending> started;
    for (const ParameterShard& shard : shards_) {
      if (is_partial_over(shard, group.axis)) {
        started.push_back(group.ranks->start_all_reduce(shard.grad));
      }
    }
    for (Pending& pending : started) {
      pending.wait();
    }
  }
}

bool is_first_copy_in_model(const ShardSpec& spec, const Coordinates& at) {
  const auto& axes = spec.partial_axes;
  if (at.index("table_copies") > 0 && std::find(axes.begin(), axes.end(), "table_copies") != axes.end()) {
    return false;
  }
  if (spec.is_split("tp")) {
    return true;
  }
  return spec.is_split("kv") ? at.index("kv_copies") == 0 : at.index("tp") == 0;
}

DataParallelStore::DataParallelStore(ParameterSet& parameters, Communicator& data, const Coordinates& at,
                                     std::vector<PartialGroup> partial, std::int64_t bucket_bytes)
    : parameters_(parameters), data_(data), partial_(std::move(partial)), leases_(parameters) {
  shards_ = whole_shards(parameters);
  for (ParameterShard& shard : shards_) {
    shard.is_first_copy = data.rank() == 0 && is_first_copy_in_model(shard.parameter->spec().shard, at);
  }
  if (data.size() > 1) {
    fill_buckets(bucket_bytes);
  }
}

/// Parameters lie in memory in the order of their groups, and backward commits from the last one to the
/// first.
void DataParallelStore::fill_buckets(std::int64_t bucket_bytes) {
  const Parameter* last = nullptr;  // of the bucket
  int group = -1;
  for (std::size_t left = parameters_.all().size(); left > 0; --left) {
    const Parameter& parameter = parameters_.all()[left - 1];
    if (parameter.spec().group != group) {
      if (last == nullptr || buckets_.back().gradients.bytes() >= bucket_bytes) {
        buckets_.emplace_back();
        last = &parameter;
      }
      group = parameter.spec().group;
      bucket_of_.resize(std::max(bucket_of_.size(), static_cast<std::size_t>(group) + 1));
      bucket_of_[static_cast<std::size_t>(group)] = buckets_.size() - 1;
      ++buckets_.back().groups;
      ++buckets_.back().uncommitted;
    }
    buckets_.back().gradients = flat_gradients(parameter, *last);
  }
}

void DataParallelStore::commit(int group, MicroBatch micro_batch) {
  if (data_.size() == 1 || micro_batch == MicroBatch::kMoreFollow) {
    return;
  }
  Bucket& bucket = buckets_[bucket_of_.at(static_cast<std::size_t>(group))];
  if (--bucket.uncommitted == 0) {
    bucket.sum = data_.start_all_reduce(bucket.gradients);
  }
}

void DataParallelStore::zero_gradients(Context& ctx) {
  for (const ParameterShard& shard : shards_) {
    zero(ctx, {.x = shard.grad});
  }
}

void DataParallelStore::finish_gradients() {
  for (Bucket& bucket : buckets_) {
    CARAVAN_CHECK(bucket.uncommitted == 0, "{} groups of {} are not committed", bucket.uncommitted,
                  bucket.gradients.str());
    bucket.sum.wait();
    bucket.uncommitted = bucket.groups;
  }
  reduce_partial_gradients(partial_);
}

}  // namespace caravan
