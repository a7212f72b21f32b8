#include "caravan/parallel/sharded_store.h"

#include <algorithm>

#include "caravan/ops/elementwise.h"

namespace caravan {

Range shard_rows(std::int64_t rows, std::int64_t index, std::int64_t count) {
  const std::int64_t base = rows / count;
  const std::int64_t extra = rows % count;
  const std::int64_t begin = index * base + std::min(index, extra);
  return {begin, begin + base + (index < extra ? 1 : 0)};
}

ShardedStore::ShardedStore(ParameterSet& parameters, const Options& options, const Ranks& ranks,
                           const Coordinates& at, DType dtype, Backend& backend)
    : parameters_(parameters),
      options_(options),
      ranks_(ranks),
      dtype_(dtype),
      backend_(backend),
      leases_(parameters),
      no_scratch_("sharded store", Buffer()) {
  lay_out();
  if (options_.zero_stage >= 2) {
    grads_ = std::make_unique<LeasedMemory>(parameters, LeasedPart::kGradient, dtype, backend);
  }
  if (options_.zero_stage >= 3) {
    values_ = std::make_unique<LeasedMemory>(
        parameters, LeasedPart::kValue, dtype, backend,
        options_.reshard_after_forward ? LeasedMemory::Keep::kWhileThereIsRoom : LeasedMemory::Keep::kAll);
  }
  list_shards(at);
}

/// Packs, and the buffers that hold and move them.
void ShardedStore::lay_out() {
  const std::int64_t members = ranks_.fsdp.size();
  std::int64_t total = 0;
  std::int64_t largest = 0;
  for (Parameter& parameter : parameters_.all()) {
    const auto group = static_cast<std::size_t>(parameter.spec().group);
    units_.resize(std::max(units_.size(), group + 1));
    Unit& unit = units_[group];
    const std::int64_t rows = parameter.shape()[0];
    const std::int64_t row_items = rows == 0 ? 0 : parameter.shape().numel() / rows;
    const std::int64_t padded = (rows + members - 1) / members;
    unit.pieces.push_back({&parameter, padded, row_items, unit.pack_items});
    unit.pack_items += padded * row_items;
  }
  for (const Unit& unit : units_) {
    total += unit.pack_items;
    largest = std::max(largest, unit.pack_items);
  }
  const auto item = static_cast<std::int64_t>(dtype_bytes(dtype_));
  gather_staging_ = backend_.allocate(members * largest * item);
  reduce_staging_ = backend_.allocate(members * largest * item);
  reduced_ = backend_.allocate(largest * item);
  arriving_bytes_ = ranks_.fsdp.reserve_reduce_scatter(largest * item);
  if (options_.zero_stage >= 2) {
    grad_shards_ = backend_.allocate(total * item);
  }
  if (options_.zero_stage >= 3) {
    value_shards_ = backend_.allocate(total * item);
  }
  std::int64_t offset = 0;
  for (Unit& unit : units_) {
    if (options_.zero_stage >= 2) {
      unit.grad_pack = grad_shards_.view(offset * item, dtype_, {unit.pack_items});
    }
    if (options_.zero_stage >= 3) {
      unit.value_pack = value_shards_.view(offset * item, dtype_, {unit.pack_items});
    }
    offset += unit.pack_items;
  }
}

void ShardedStore::list_shards(const Coordinates& at) {
  const bool is_first_replica = ranks_.replicate.rank() == 0;
  for (const Unit& unit : units_) {
    for (const Piece& piece : unit.pieces) {
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
      const auto in_pack = [&](const TensorView& pack) {
        return pack.rows(piece.offset, piece.offset + shape.numel()).reshape(shape);
      };
      shards_.push_back(
          {&parameter, region,
           values_ ? in_pack(unit.value_pack) : parameter.stored_value().rows(rows.begin, rows.end),
           grads_ ? in_pack(unit.grad_pack) : parameter.stored_grad().rows(rows.begin, rows.end),
           is_first_replica && is_first_copy_in_model(parameter.spec().shard, at)});
    }
  }
}

Context ShardedStore::context() {
  return {.backend = backend_,
          .stream = stream_,
          .scratch = no_scratch_,
          .scalars = scalars_,
          .dtype = dtype_,
          .trace = nullptr};
}

/// A member's rows of the whole tensors, side by side; what pads them is zero, so that sums stay finite.
void ShardedStore::pack(const Unit& unit, bool is_gradient, std::int64_t member, const TensorView& to) {
  const Context ctx = context();
  for (const Piece& piece : unit.pieces) {
    const Parameter& parameter = *piece.parameter;
    const TensorView whole = is_gradient ? parameter.stored_grad() : parameter.stored_value();
    const Range rows = shard_rows(parameter.shape()[0], member, ranks_.fsdp.size());
    const std::int64_t end = piece.offset + rows.size() * piece.row_items;
    if (rows.size() > 0) {
      copy(ctx, {.from = whole.rows(rows.begin, rows.end),
                 .to = to.rows(piece.offset, end).reshape(whole.rows(rows.begin, rows.end).shape())});
    }
    if (rows.size() < piece.padded_rows) {
      zero(ctx, {.x = to.rows(end, piece.offset + piece.padded_rows * piece.row_items)});
    }
  }
}

void ShardedStore::unpack(const Unit& unit, bool is_gradient, std::int64_t member, const TensorView& from) {
  const Context ctx = context();
  for (const Piece& piece : unit.pieces) {
    const Parameter& parameter = *piece.parameter;
    const Range rows = shard_rows(parameter.shape()[0], member, ranks_.fsdp.size());
    if (rows.size() == 0) {
      continue;
    }
    const TensorView whole = is_gradient ? parameter.stored_grad() : parameter.stored_value();
    const TensorView to = whole.rows(rows.begin, rows.end);
    copy(ctx, {.from = from.rows(piece.offset, piece.offset + to.numel()).reshape(to.shape()), .to = to});
  }
}

void ShardedStore::start_gather(int group) {
  finish_gather();
  const Unit& gathered = unit(group);
  if (values_) {
    values_->acquire(group);
    gathering_ = group;
    gather_ = ranks_.fsdp.start_all_gather(gathered.value_pack,
                                           flat(gather_staging_, ranks_.fsdp.size() * gathered.pack_items));
  }
}

void ShardedStore::finish_gather() {
  if (gathering_ < 0) {
    return;
  }
  gather_.wait();
  const Unit& gathered = unit(gathering_);
  const std::int64_t members = ranks_.fsdp.size();
  const TensorView all = flat(gather_staging_, members * gathered.pack_items);
  for (std::int64_t member = 0; member < members; ++member) {
    unpack(gathered, false, member,
           all.rows(member * gathered.pack_items, (member + 1) * gathered.pack_items));
  }
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
    const Context ctx = context();
    for (const Piece& piece : unit(group).pieces) {
      zero(ctx, {.x = piece.parameter->stored_grad()});
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
  const Unit& reduced = unit(group);
  const std::int64_t members = ranks_.fsdp.size();
  const TensorView all = flat(reduce_staging_, members * reduced.pack_items);
  for (std::int64_t member = 0; member < members; ++member) {
    pack(reduced, true, member, all.rows(member * reduced.pack_items, (member + 1) * reduced.pack_items));
  }
  if (grads_) {
    grads_->release(group);
    grads_->forget(group);
  }
  reducing_ = group;
  reducing_micro_batch_ = micro_batch;
  reduction_ = ranks_.fsdp.start_reduce_scatter(all, flat(reduced_, reduced.pack_items));
}

void ShardedStore::finish_reduction() {
  if (reducing_ < 0) {
    return;
  }
  reduction_.wait();
  const Unit& reduced = unit(reducing_);
  const bool is_last = reducing_micro_batch_ == MicroBatch::kLast;
  reducing_ = -1;
  const TensorView sum = flat(reduced_, reduced.pack_items);
  const bool has_copies = ranks_.replicate.size() > 1;
  if (grads_) {
    add(context(), {.x = reduced.grad_pack, .z = sum, .y = reduced.grad_pack});
    if (is_last && has_copies) {
      replicated_.push_back(ranks_.replicate.start_all_reduce(reduced.grad_pack));
    }
    return;
  }
  if (has_copies) {
    ranks_.replicate.all_reduce(sum);  // at once: the next reduction needs the memory
  }
  unpack(reduced, true, ranks_.fsdp.rank(), sum);
}

void ShardedStore::zero_gradients(Context& ctx) {
  if (grads_) {
    for (const Unit& each : units_) {
      zero(ctx, {.x = each.grad_pack});
    }
    return;
  }
  for (const Parameter& parameter : parameters_.all()) {
    zero(ctx, {.x = parameter.stored_grad()});
  }
}

void ShardedStore::finish_gradients(Context& ctx) {
  finish_reduction();
  for (Pending& pending : replicated_) {
    pending.wait();
  }
  replicated_.clear();
  reduce_partial_gradients(ctx, ranks_.partial);
}

void ShardedStore::publish_values(Context& /*ctx*/) {
  if (values_) {
    values_->forget_all();
    return;
  }
  const std::int64_t members = ranks_.fsdp.size();
  for (const Unit& each : units_) {
    if (each.pieces.empty()) {
      continue;  // a group of another pipeline stage
    }
    const TensorView mine = flat(reduced_, each.pack_items);
    const TensorView all = flat(gather_staging_, members * each.pack_items);
    pack(each, false, ranks_.fsdp.rank(), mine);
    ranks_.fsdp.all_gather(mine, all);
    for (std::int64_t member = 0; member < members; ++member) {
      unpack(each, false, member, all.rows(member * each.pack_items, (member + 1) * each.pack_items));
    }
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

std::int64_t ShardedStore::bytes() const {
  return value_shards_.bytes() + grad_shards_.bytes() + gather_staging_.bytes() + reduce_staging_.bytes() +
         reduced_.bytes() + arriving_bytes_ + (values_ ? values_->bytes() : 0) + (grads_ ? grads_->bytes() : 0);
}

}  // namespace caravan
