#include "caravan/parallel/training_store.h"

#include <algorithm>

#include "caravan/ops/elementwise.h"

namespace caravan {
namespace {

bool is_partial_over(const ParameterShard& shard, const std::string& axis) {
  const auto& axes = shard.parameter->spec().shard.partial_axes;
  return shard.parameter->is_trainable() && std::find(axes.begin(), axes.end(), axis) != axes.end();
}

/// Sums several small gradients over `ranks` in one message.
void reduce_packed(Context& ctx, const std::vector<const ParameterShard*>& partial, Communicator& ranks) {
  std::int64_t count = 0;
  for (const ParameterShard* shard : partial) {
    count += shard->grad.numel();
  }
  const ArenaScope scope(ctx.scratch);
  const TensorView packed = ctx.allocate("partial gradients", {count});
  const auto visit = [&](const auto& move) {
    std::int64_t offset = 0;
    for (const ParameterShard* shard : partial) {
      const std::int64_t end = offset + shard->grad.numel();
      move(packed.rows(offset, end).reshape(shard->grad.shape()), shard->grad);
      offset = end;
    }
  };
  visit([&](const TensorView& part, const TensorView& grad) { copy(ctx, {.from = grad, .to = part}); });
  ranks.all_reduce(packed);
  visit([&](const TensorView& part, const TensorView& grad) { copy(ctx, {.from = part, .to = grad}); });
}

/// From the first to the last gradient of a group, padding between tensors included: they lie side by side.
TensorView flat_gradients(const std::vector<const Parameter*>& group) {
  const TensorView first = group.front()->stored_grad();
  const TensorView last = group.back()->stored_grad();
  const auto* begin = static_cast<const std::byte*>(first.raw());
  const auto* end = static_cast<const std::byte*>(last.raw()) + last.bytes();
  const auto item = static_cast<std::ptrdiff_t>(dtype_bytes(first.dtype()));
  CARAVAN_CHECK(end > begin && (end - begin) % item == 0, "gradients of group {} are not side by side",
                group.front()->spec().group);
  return {first.raw(), first.dtype(), {(end - begin) / item}, first.device()};
}

}  // namespace

void TrainingStore::reduce_partial_gradients(Context& ctx, const std::vector<PartialGroup>& groups) {
  for (const PartialGroup& group : groups) {
    std::vector<const ParameterShard*> partial;
    for (const ParameterShard& shard : shards_) {
      if (is_partial_over(shard, group.axis)) {
        partial.push_back(&shard);
      }
    }
    if (group.ranks->size() == 1 || partial.empty()) {
      continue;
    }
    if (partial.size() == 1) {  // in place: a vocabulary's table is larger than scratch memory may be
      group.ranks->all_reduce(partial.front()->grad);
    } else {
      reduce_packed(ctx, partial, *group.ranks);
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
                                     std::vector<PartialGroup> partial)
    : parameters_(parameters), data_(data), partial_(std::move(partial)), leases_(parameters) {
  shards_ = whole_shards(parameters);
  for (ParameterShard& shard : shards_) {
    shard.is_first_copy = data.rank() == 0 && is_first_copy_in_model(shard.parameter->spec().shard, at);
  }
  if (data.size() == 1) {
    return;
  }
  std::vector<std::vector<const Parameter*>> groups;
  for (const Parameter& parameter : parameters.all()) {
    const auto group = static_cast<std::size_t>(parameter.spec().group);
    groups.resize(std::max(groups.size(), group + 1));
    groups[group].push_back(&parameter);
  }
  for (const auto& group : groups) {
    group_gradients_.push_back(group.empty() ? TensorView() : flat_gradients(group));
  }
}

void DataParallelStore::commit(int group, MicroBatch micro_batch) {
  if (data_.size() > 1 && micro_batch == MicroBatch::kLast) {
    started_.push_back(data_.start_all_reduce(group_gradients_.at(static_cast<std::size_t>(group))));
  }
}

void DataParallelStore::zero_gradients(Context& ctx) {
  for (const ParameterShard& shard : shards_) {
    zero(ctx, {.x = shard.grad});
  }
}

void DataParallelStore::finish_gradients(Context& ctx) {
  for (Pending& pending : started_) {
    pending.wait();
  }
  started_.clear();
  reduce_partial_gradients(ctx, partial_);
}

}  // namespace caravan
