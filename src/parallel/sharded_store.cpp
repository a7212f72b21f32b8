#include "caravan/parallel/sharded_store.h"

#include "caravan/ops/elementwise.h"

namespace caravan {

using Part = UnitPacks::Part;

ShardedStore::ShardedStore(ParameterSet& parameters, const Options& options, const Ranks& ranks,
                           const Coordinates& at, DType dtype, const Backends& backends)
    : parameters_(parameters),
      options_(options),
      ranks_(ranks),
      dtype_(dtype),
      gradient_dtype_(accumulation_dtype(dtype)),
      backends_(backends),
      leases_(parameters),
      packs_(parameters, ranks.fsdp.size()),
      no_scratch_("sharded store", Buffer()) {
  CARAVAN_CHECK(options.offload != CpuOffload::kParametersAndOptimizer || options.zero_stage == 3,
                "weights are offloaded in stage {}, where they stay whole on the device", options.zero_stage);
  allocate();
  list_shards(at);
}

void ShardedStore::allocate() {
  const auto item = static_cast<std::int64_t>(dtype_bytes(dtype_));
  const auto gradient_item = static_cast<std::int64_t>(dtype_bytes(gradient_dtype_));
  const std::int64_t total = packs_.total_items();
  const std::int64_t largest = packs_.largest_items();
  Backend& device = backends_.device;
  gather_staging_ = device.allocate(packs_.members() * largest * item);
  reduce_staging_ = device.allocate(packs_.members() * largest * gradient_item);
  reduced_ = device.allocate(largest * gradient_item);
  arriving_bytes_ = ranks_.fsdp.reserve_reduce_scatter(largest * gradient_item);
  if (options_.zero_stage >= 2) {
    grads_ = std::make_unique<LeasedMemory>(parameters_, LeasedPart::kGradient, gradient_dtype_, device);
  }
  if (options_.zero_stage >= 3) {
    values_ = std::make_unique<LeasedMemory>(
        parameters_, LeasedPart::kValue, dtype_, device,
        options_.reshard_after_forward ? LeasedMemory::Keep::kWhileThereIsRoom : LeasedMemory::Keep::kAll);
  }
  if (is_offloaded()) {
    host_values_ = device.allocate_pinned(total * item);
    grad_shards_ = device.allocate_pinned(total * gradient_item);
    host_arriving_ = device.allocate_pinned(largest * gradient_item);
  } else if (grads_) {
    grad_shards_ = device.allocate(total * gradient_item);
  }
  if (values_ && options_.offload != CpuOffload::kParametersAndOptimizer) {
    value_shards_ = device.allocate(total * item);
  }
}

TensorView ShardedStore::pack_in(const Buffer& packs, const UnitPacks::Unit& unit, DType dtype) {
  return packs.view(unit.offset * static_cast<std::int64_t>(dtype_bytes(dtype)), dtype, {unit.items});
}

void ShardedStore::list_shards(const Coordinates& at) {
  const bool is_first_replica = ranks_.replicate.rank() == 0;
  for (const UnitPacks::Unit& unit : packs_.units()) {
    for (const UnitPacks::Piece& piece : unit.pieces) {
      Parameter& parameter = *piece.parameter;
      const Range rows = shard_rows(parameter.shape()[0], ranks_.fsdp.rank(), ranks_.fsdp.size());
      if (rows.size() == 0) {
        continue;
      }
      Shape shape = {rows.size()};
      Region region = parameter.region();
      region[0] = {region[0].begin + rows.begin, region[0].begin + rows.end};
      for (int dim = 1; dim < parameter.shape().rank(); ++dim) {
        shape.append(parameter.shape()[dim]);
      }
      const auto in_pack = [&](const Buffer& packs, DType dtype) {
        return pack_in(packs, unit, dtype).rows(piece.offset, piece.offset + shape.numel()).reshape(shape);
      };
      const auto in_place = [&](const TensorView& whole) { return whole.rows(rows.begin, rows.end); };
      shards_.push_back({&parameter, region,
                         is_offloaded() ? in_pack(host_values_, dtype_)
                         : values_      ? in_pack(value_shards_, dtype_)
                                        : in_place(parameter.stored_value()),
                         is_offloaded() || grads_ ? in_pack(grad_shards_, gradient_dtype_)
                                                  : in_place(parameter.stored_grad()),
                         is_first_replica && is_first_copy_in_model(parameter.spec().shard, at)});
    }
  }
}

Context ShardedStore::context(Backend& backend) {
  return {.backend = backend,
          .stream = stream_,
          .scratch = no_scratch_,
          .scalars = scalars_,
          .dtype = gradient_dtype_,  // the store adds up gradients alone
          .trace = nullptr};
}

void ShardedStore::start_gather(int group) {
  finish_gather();
  const UnitPacks::Unit& unit = packs_.unit(group);
  values_->acquire(group);
  gathering_ = group;
  const TensorView all = flat(gather_staging_, dtype_, packs_.members() * unit.items);
  TensorView mine;
  if (options_.offload == CpuOffload::kParametersAndOptimizer) {
    const std::int64_t rank = ranks_.fsdp.rank();
    mine = all.rows(rank * unit.items, (rank + 1) * unit.items);
    copy(device(), {.from = pack_in(host_values_, unit, dtype_), .to = mine});
  } else {
    mine = pack_in(value_shards_, unit, dtype_);
  }
  gather_ = ranks_.fsdp.start_all_gather(mine, all);
}

void ShardedStore::finish_gather() {
  if (gathering_ < 0) {
    return;
  }
  gather_.wait();
  const UnitPacks::Unit& unit = packs_.unit(gathering_);
  packs_.unpack_all(device(), unit, Part::kValue,
                    flat(gather_staging_, dtype_, packs_.members() * unit.items));
  values_->release(gathering_);
  gathering_ = -1;
}

void ShardedStore::prefetch(int group, LeaseUse /*use*/) {
  if (values_ && group != gathering_ && !values_->holds(group)) {
    start_gather(group);
  }
}

void ShardedStore::acquire(int group, LeaseUse use) {
  if (values_) {
    if (group != gathering_ && !values_->holds(group)) {
      start_gather(group);
    }
    if (group == gathering_) {
      finish_gather();
    }
    values_->acquire(group);
  }
  if (grads_ && use == LeaseUse::kBackward && !grads_->holds(group)) {
    grads_->acquire(group);  // until commit, however many leases come before
    for (const UnitPacks::Piece& piece : packs_.unit(group).pieces) {
      zero(device(), {.x = piece.parameter->stored_grad()});
    }
  }
  leases_.acquire(group, use);
}

void ShardedStore::release(int group) {
  leases_.release(group);
  if (values_) {
    values_->release(group);
  }
}

void ShardedStore::commit(int group, MicroBatch micro_batch) {
  if (!grads_ && micro_batch == MicroBatch::kMoreFollow) {
    return;  // whole gradients stay in place and add up
  }
  finish_reduction();
  const UnitPacks::Unit& unit = packs_.unit(group);
  const TensorView all = flat(reduce_staging_, gradient_dtype_, packs_.members() * unit.items);
  packs_.pack_all(device(), unit, Part::kGradient, all);
  if (grads_) {
    grads_->release(group);
    grads_->forget(group);
  }
  reducing_ = group;
  reducing_micro_batch_ = micro_batch;
  reduction_ = ranks_.fsdp.start_reduce_scatter(all, flat(reduced_, gradient_dtype_, unit.items));
}

void ShardedStore::finish_reduction() {
  if (reducing_ < 0) {
    return;
  }
  reduction_.wait();
  const UnitPacks::Unit& unit = packs_.unit(reducing_);
  reducing_ = -1;
  const TensorView sum = flat(reduced_, gradient_dtype_, unit.items);
  const bool has_copies = ranks_.replicate.size() > 1;
  if (is_offloaded() || grads_) {
    keep_gradients(unit, sum);
    if (has_copies && reducing_micro_batch_ == MicroBatch::kLast) {
      replicated_.push_back(ranks_.replicate.start_all_reduce(pack_in(grad_shards_, unit, gradient_dtype_)));
    }
    return;
  }
  if (has_copies) {
    ranks_.replicate.all_reduce(sum);  // at once: the next reduction needs the memory
  }
  packs_.unpack(device(), unit, Part::kGradient, ranks_.fsdp.rank(), sum);
}

void ShardedStore::keep_gradients(const UnitPacks::Unit& unit, const TensorView& sum) {
  const TensorView kept = pack_in(grad_shards_, unit, gradient_dtype_);
  if (!grads_) {
    copy(device(), {.from = sum, .to = kept});  // stage 1: the whole gradients have added up already
  } else if (is_offloaded()) {
    const TensorView arriving = flat(host_arriving_, gradient_dtype_, unit.items);
    copy(device(), {.from = sum, .to = arriving});
    add(host(), {.x = kept, .z = arriving, .y = kept});
  } else {
    add(device(), {.x = kept, .z = sum, .y = kept});
  }
}

void ShardedStore::zero_gradients(Context& ctx) {
  if (is_offloaded() || grads_) {
    for (const UnitPacks::Unit& unit : packs_.units()) {
      zero(is_offloaded() ? host() : device(), {.x = pack_in(grad_shards_, unit, gradient_dtype_)});
    }
  }
  if (!grads_) {
    for (const Parameter& parameter : parameters_.all()) {
      zero(ctx, {.x = parameter.stored_grad()});
    }
  }
}

void ShardedStore::settle() {
  finish_gather();
  finish_reduction();
  if (values_) {
    values_->forget_all();
  }
}

void ShardedStore::finish_gradients() {
  finish_reduction();
  for (Pending& pending : replicated_) {
    pending.wait();
  }
  replicated_.clear();
  reduce_partial_gradients(ranks_.partial);
}

void ShardedStore::publish_values(Context& /*ctx*/) {
  for (const UnitPacks::Unit& unit : packs_.units()) {
    if (unit.pieces.empty()) {
      continue;
    }
    if (values_) {
      if (options_.offload == CpuOffload::kOptimizer) {
        copy(device(),
             {.from = pack_in(host_values_, unit, dtype_), .to = pack_in(value_shards_, unit, dtype_)});
      }
      continue;
    }
    const TensorView mine = flat(reduced_, dtype_, unit.items);
    const TensorView all = flat(gather_staging_, dtype_, packs_.members() * unit.items);
    if (is_offloaded()) {
      copy(device(), {.from = pack_in(host_values_, unit, dtype_), .to = mine});
    } else {
      packs_.pack(device(), unit, Part::kValue, ranks_.fsdp.rank(), mine);
    }
    ranks_.fsdp.all_gather(mine, all);
    packs_.unpack_all(device(), unit, Part::kValue, all);
  }
  if (values_) {
    values_->forget_all();
  }
}

ShardedStore::Slots ShardedStore::slots() const {
  return {values_ ? values_->slot_bytes() : std::vector<std::int64_t>(),
          grads_ ? grads_->slot_bytes() : std::vector<std::int64_t>()};
}

void ShardedStore::reserve(const Slots& slots) {
  if (values_) {
    values_->reserve(slots.values);
  }
  if (grads_) {
    grads_->reserve(slots.gradients);
  }
}

std::int64_t ShardedStore::device_bytes() const {
  return value_shards_.bytes() + (is_offloaded() ? 0 : grad_shards_.bytes()) + gather_staging_.bytes() +
         reduce_staging_.bytes() + reduced_.bytes() + arriving_bytes_ + (values_ ? values_->bytes() : 0) +
         (grads_ ? grads_->bytes() : 0);
}

std::int64_t ShardedStore::host_bytes() const {
  return host_values_.bytes() + host_arriving_.bytes() + (is_offloaded() ? grad_shards_.bytes() : 0);
}

}  // namespace caravan
