#include "caravan/optim/adamw.h"

#include <algorithm>
#include <cstddef>

#include "caravan/backend/device_memory.h"
#include "caravan/core/counter_rng.h"
#include "caravan/ops/elementwise.h"
#include "caravan/ops/optimizer_step.h"

namespace caravan {

bool matches_pattern(const std::string& pattern, const std::string& name) {
  // Greedy matching with one point to return to: the last *.
  std::size_t p = 0;
  std::size_t n = 0;
  std::size_t star = std::string::npos;
  std::size_t star_end = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_end = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p;
      ++n;
    } else if (star != std::string::npos) {
      p = star + 1;
      n = ++star_end;
    } else {
      return false;
    }
  }
  return std::all_of(pattern.begin() + static_cast<std::ptrdiff_t>(p), pattern.end(),
                     [](char c) { return c == '*'; });
}

namespace {

TensorView whole(const Buffer& memory) {
  return memory.view(0, DType::kUInt8, {memory.bytes()});
}

/// By the place of the shard's elements in the whole tensor.
StochasticRounding rounding_of(const ParameterShard& shard, std::uint64_t seed) {
  const Region& region = shard.region;
  const Shape& shape = shard.parameter->spec().shape;
  const bool is_matrix = shape.rank() == 2;
  return {.is_on = true,
          .row_begin = is_matrix ? region.at(0).begin : 0,
          .col_begin = is_matrix ? region.at(1).begin : region.at(0).begin,
          .global_cols = shape[shape.rank() - 1],
          .seed = seed,
          .stream = stream_id(shard.parameter->name())};
}

// sums() views the first two numbers.
static_assert(offsetof(UpdateState, loss_sum) == 0 && offsetof(UpdateState, sum_squares) == sizeof(double));

}  // namespace

std::int64_t Adamw::state_bytes(std::int64_t elements, DType dtype, bool has_masters) {
  const DType state = accumulation_dtype(dtype);
  return (state == dtype || !has_masters ? 2 : 3) * elements * static_cast<std::int64_t>(dtype_bytes(state));
}

Adamw::Adamw(const std::vector<ParameterShard>& shards, AdamwOptions options, DType dtype, Backend& backend)
    : options_(std::move(options)), state_memory_(backend.allocate(sizeof(UpdateState))) {
  state_now_.loss_scale = options_.first_loss_scale;
  send_state();
  std::int64_t count = 0;
  for (const ParameterShard& shard : shards) {
    count += shard.parameter->is_trainable() ? shard.value.numel() : 0;
  }
  const DType state = accumulation_dtype(dtype);
  const bool has_masters = state != dtype && options_.has_masters;
  CARAVAN_CHECK(state == dtype || has_masters || dtype == DType::kBFloat16, "{} weights without masters",
                dtype_name(dtype));
  const auto item = static_cast<std::int64_t>(dtype_bytes(state));
  memory_ = backend.allocate(state_bytes(count, dtype, options_.has_masters));
  state_ = memory_.view(0, state, {2, count});
  std::int64_t offset = 0;
  const auto part = [&](std::int64_t which, const Shape& shape) {
    return memory_.view((which * count + offset) * item, state, shape);
  };
  for (const ParameterShard& shard : shards) {
    if (!shard.parameter->is_trainable()) {
      continue;
    }
    const bool decays =
        std::none_of(options_.no_decay.begin(), options_.no_decay.end(),
                     [&](const auto& pattern) { return matches_pattern(pattern, shard.parameter->name()); });
    const Shape& shape = shard.value.shape();
    entries_.push_back(
        {shard, part(0, shape), part(1, shape), has_masters ? part(2, shape) : TensorView(),
         decays ? options_.weight_decay : 0.0,
         state != dtype && !has_masters ? rounding_of(shard, options_.seed) : StochasticRounding()});
    offset += shard.value.numel();
  }
}

/// Values that came from elsewhere since the last step are what the masters begin with.
void Adamw::refresh_masters(const Context& ctx) {
  if (masters_are_current_) {
    return;
  }
  for (const Entry& entry : entries_) {
    if (entry.master.defined()) {
      copy(ctx, {.from = entry.shard.value, .to = entry.master});
    }
  }
  masters_are_current_ = true;
}

void Adamw::begin(const Context& ctx) {
  zero(ctx, {.x = sums()});
}

void Adamw::add_squares(const Context& ctx) {
  for (const Entry& entry : entries_) {
    if (entry.shard.is_first_copy) {
      sum_squares(ctx, {.x = entry.shard.grad, .result = sums().rows(1, 2)});
    }
  }
}

void Adamw::update(const Context& ctx) {
  auto* const state = static_cast<UpdateState*>(state_memory_.data());
  prepare_update(ctx, {.max_norm = options_.clip_norm,
                       .beta1 = options_.beta1,
                       .beta2 = options_.beta2,
                       .policy = options_.loss_scale,
                       .state = state});
  for (const Entry& entry : entries_) {
    adamw(ctx, {.param = entry.shard.value,
                .grad = entry.shard.grad,
                .m = entry.m,
                .v = entry.v,
                .master = entry.master,
                .rounding = entry.rounding,
                .weight_decay = entry.weight_decay,
                .beta1 = options_.beta1,
                .beta2 = options_.beta2,
                .eps = options_.eps,
                .scalars = &ctx.scalars,
                .state = state});
  }
}

const UpdateState& Adamw::finish() {
  copy_to_host(whole(state_memory_), &state_now_);
  return state_now_;
}

void Adamw::send_state() {
  copy_from_host(&state_now_, whole(state_memory_));
}

void Adamw::set_update_state(const UpdateState& state) {
  state_now_ = state;
  send_state();
}

void Adamw::set_steps(std::int64_t steps) {
  state_now_.updates = steps;
  send_state();
}

void Adamw::reset(const Context& ctx) {
  set_steps(0);
  zero(ctx, {.x = state_});
}

}  // namespace caravan
