#include "caravan/optim/adamw.h"

#include <algorithm>
#include <cmath>

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

std::int64_t Adamw::state_bytes(std::int64_t elements, DType dtype) {
  const DType state = accumulation_dtype(dtype);
  return (state == dtype ? 2 : 3) * elements * static_cast<std::int64_t>(dtype_bytes(state));
}

Adamw::Adamw(const std::vector<ParameterShard>& shards, AdamwOptions options, DType dtype, Backend& backend)
    : options_(std::move(options)) {
  std::int64_t count = 0;
  for (const ParameterShard& shard : shards) {
    count += shard.parameter->is_trainable() ? shard.value.numel() : 0;
  }
  const DType state = accumulation_dtype(dtype);
  const bool has_masters = state != dtype;
  const auto item = static_cast<std::int64_t>(dtype_bytes(state));
  memory_ = backend.allocate(state_bytes(count, dtype));
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
    entries_.push_back({shard, part(0, shape), part(1, shape), has_masters ? part(2, shape) : TensorView(),
                        decays ? options_.weight_decay : 0.0});
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

void Adamw::step(const Context& ctx, double lr, double clip_factor) {
  ++steps_;
  const auto t = static_cast<double>(steps_);
  ctx.scalars.step = steps_;
  ctx.scalars.lr = lr;
  ctx.scalars.clip_factor = clip_factor;
  ctx.scalars.bias_correction1 = 1.0 - std::pow(options_.beta1, t);
  ctx.scalars.bias_correction2_sqrt = std::sqrt(1.0 - std::pow(options_.beta2, t));
  refresh_masters(ctx);
  for (const Entry& entry : entries_) {
    adamw(ctx, {.param = entry.shard.value,
                .grad = entry.shard.grad,
                .m = entry.m,
                .v = entry.v,
                .master = entry.master,
                .weight_decay = entry.weight_decay,
                .beta1 = options_.beta1,
                .beta2 = options_.beta2,
                .eps = options_.eps,
                .scalars = &ctx.scalars});
  }
}

void Adamw::reset(const Context& ctx) {
  steps_ = 0;
  zero(ctx, {.x = state_});
}

}  // namespace caravan
