#include "caravan/train/executor.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "caravan/ops/elementwise.h"

namespace caravan {
namespace {

constexpr std::int64_t kUnlimited = std::numeric_limits<std::int64_t>::max() / 4;

double sum_on_host(const TensorView& losses) {
  if (losses.dtype() == DType::kFloat64) {
    const auto* values = losses.data<double>();
    return std::accumulate(values, values + losses.numel(), 0.0);
  }
  const auto* values = losses.data<float>();
  return std::accumulate(values, values + losses.numel(), 0.0,
                         [](double sum, float value) { return sum + static_cast<double>(value); });
}

}  // namespace

Executor::Executor(Llama& model, Backend& backend, const Limits& limits)
    : Executor(model, backend, limits, measure(model.config(), model.layout(), model.ports(), limits)) {}

Executor::Executor(Llama& model, Backend& backend, const Limits& limits, const StepNeeds& needs,
                   ParamStore* store)
    : model_(model),
      backend_(backend),
      local_store_(model.parameters()),
      store_(store != nullptr ? *store : local_store_),
      limits_(limits),
      device_batch_(backend, limits.batch * limits.seq_len),
      saved_arena_("activations", backend.allocate(needs.saved_bytes)),
      scratch_arena_("scratch", backend.allocate(needs.scratch_bytes)) {
  for (const auto& segment : model.segments()) {
    saved_.push_back(segment->make_saved());
    groups_.push_back(segment->groups());
  }
  head_groups_ = model.head().groups();
  const auto note_user = [&](const std::vector<int>& groups, std::size_t user) {
    for (const int group : groups) {
      const auto index = static_cast<std::size_t>(group);
      first_user_.resize(std::max(first_user_.size(), index + 1), std::numeric_limits<std::size_t>::max());
      first_user_[index] = std::min(first_user_[index], user);
    }
  };
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    note_user(groups_[i], i);
  }
  note_user(head_groups_, groups_.size());
}

StepNeeds Executor::measure(const ModelConfig& config, const Llama::Layout& layout, const Ports& ports,
                            const Limits& limits) {
  CountingBackend counting;
  Llama model(config, layout, counting, ports);
  return measure(model, counting, limits, nullptr);
}

StepNeeds Executor::measure(Llama& model, CountingBackend& counting, const Limits& limits,
                            ParamStore* store) {
  Executor executor(model, counting, limits, StepNeeds{kUnlimited, kUnlimited, {}}, store);
  executor.run_on_shapes(limits.pass);
  StepNeeds needs{executor.saved_high_water(), executor.scratch_high_water(), counting.work()};
  if (limits.pass == Pass::kForwardBackward) {
    // The same executor evaluates as well, and inference keeps in scratch what training keeps in the saved
    // arena.
    executor.run_on_shapes(Pass::kForward);
    needs.scratch_bytes = executor.scratch_high_water();
  }
  return needs;
}

void Executor::run_on_shapes(Pass pass) {
  const TokenBatch tokens = device_batch_.shape(limits_.batch, limits_.seq_len);
  Context ctx = context();
  const ArenaScope scope(scratch_arena_);
  const TensorView losses = ctx.allocate("losses", {tokens.n_tokens()});
  if (pass == Pass::kForwardBackward) {
    forward_backward(ctx, tokens, losses, MicroBatch::kLast);
  } else {
    loss(ctx, tokens, losses);
  }
}

Context Executor::context(Trace* trace) {
  return {.backend = backend_,
          .stream = stream_,
          .scratch = scratch_arena_,
          .scalars = scalars_,
          .dtype = model_.dtype(),
          .trace = trace};
}

Shape Executor::stream_shape(const TokenBatch& tokens) const {
  return {model_.ports().boundary.stream_tokens(tokens.n_tokens()), model_.config().hidden_size};
}

void Executor::prefetch(const std::vector<int>& groups, LeaseUse use) {
  for (const int group : groups) {
    store_.prefetch(group, use);
  }
}

/// After the backward of `user` (a segment, or the head after the last): tells the store of the groups that
/// no earlier segment uses.
void Executor::commit(const std::vector<int>& groups, std::size_t user, MicroBatch micro_batch) {
  for (const int group : groups) {
    if (first_user_[static_cast<std::size_t>(group)] == user) {
      store_.commit(group, micro_batch);
    }
  }
}

void Executor::forward_backward(Context& ctx, const TokenBatch& tokens, const TensorView& losses,
                                MicroBatch micro_batch) {
  ResidualStream stream{.x = {}, .delta = ctx.allocate("delta", stream_shape(tokens))};
  const TensorView g = ctx.allocate("stream gradient", stream_shape(tokens));
  const auto& segments = model_.segments();
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const Lease lease(store_, groups_[i]);
    if (i + 1 < segments.size()) {
      prefetch(groups_[i + 1], LeaseUse::kForward);
    } else {
      prefetch(head_groups_, LeaseUse::kBackward);
    }
    saved_[i]->begin(&saved_arena_, limits_.policy);
    const ArenaScope scope(ctx.scratch);
    segments[i]->forward(ctx, tokens, stream, *saved_[i]);
    saved_[i]->forget_scratch();
  }
  {
    const Lease lease(store_, head_groups_, LeaseUse::kBackward);
    prefetch(groups_.back(), LeaseUse::kBackward);
    model_.head().loss_and_backward(ctx, tokens, stream, losses, g);
  }
  commit(head_groups_, segments.size(), micro_batch);
  for (std::size_t i = segments.size(); i-- > 0;) {
    {
      const Lease lease(store_, groups_[i], LeaseUse::kBackward);
      if (i > 0) {
        prefetch(groups_[i - 1], LeaseUse::kBackward);
      }
      segments[i]->backward(ctx, tokens, g, *saved_[i]);
      saved_[i]->finish();
    }
    commit(groups_[i], i, micro_batch);
  }
}

void Executor::forward(Context& ctx, const TokenBatch& tokens, ResidualStream& stream) {
  const auto& segments = model_.segments();
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const Lease lease(store_, groups_[i]);
    prefetch(i + 1 < segments.size() ? groups_[i + 1] : head_groups_, LeaseUse::kForward);
    saved_[i]->begin(nullptr, SavePolicy::inference());
    const ArenaScope scope(ctx.scratch);
    segments[i]->forward(ctx, tokens, stream, *saved_[i]);
    saved_[i]->finish();
  }
}

void Executor::loss(Context& ctx, const TokenBatch& tokens, const TensorView& losses) {
  ResidualStream stream{.x = ctx.allocate("stream", stream_shape(tokens)),
                        .delta = ctx.allocate("delta", stream_shape(tokens))};
  forward(ctx, tokens, stream);
  const Lease lease(store_, head_groups_);
  model_.head().loss(ctx, tokens, stream, losses);
}

double Executor::forward_backward(const Batch& batch, std::int64_t valid_tokens, MicroBatch micro_batch) {
  CARAVAN_CHECK(limits_.pass == Pass::kForwardBackward, "this executor was built for the forward pass only");
  const TokenBatch tokens = device_batch_.upload(batch);
  Context ctx = context();
  scalars_.inv_valid_tokens = valid_tokens > 0 ? 1.0 / static_cast<double>(valid_tokens) : 0.0;
  const ArenaScope scope(scratch_arena_);
  const TensorView losses = ctx.allocate("losses", {tokens.n_tokens()});
  forward_backward(ctx, tokens, losses, micro_batch);
  return sum_on_host(losses);
}

double Executor::loss(const Batch& batch) {
  const TokenBatch tokens = device_batch_.upload(batch);
  Context ctx = context();
  const ArenaScope scope(scratch_arena_);
  const TensorView losses = ctx.allocate("losses", {tokens.n_tokens()});
  loss(ctx, tokens, losses);
  return sum_on_host(losses);
}

std::vector<double> Executor::logits(const Batch& batch, std::int64_t begin, std::int64_t end) {
  const TokenBatch tokens = device_batch_.upload(batch);
  Context ctx = context();
  const std::int64_t vocab = model_.head().columns();
  std::vector<double> result(static_cast<std::size_t>((end - begin) * vocab));
  const ArenaScope scope(scratch_arena_);
  ResidualStream stream{.x = ctx.allocate("stream", stream_shape(tokens)),
                        .delta = ctx.allocate("delta", stream_shape(tokens))};
  forward(ctx, tokens, stream);
  const TensorView logits = ctx.allocate("logits", {end - begin, vocab});
  const Lease lease(store_, head_groups_);
  model_.head().logits(ctx, stream, begin, end, logits);
  copy(ctx, {.from = logits, .to = TensorView(result.data(), DType::kFloat64, logits.shape())});
  return result;
}

void Executor::observe(const Batch& batch, Trace& trace) {
  const TokenBatch tokens = device_batch_.upload(batch);
  Context ctx = context(&trace);
  const ArenaScope scope(scratch_arena_);
  loss(ctx, tokens, ctx.allocate("losses", {tokens.n_tokens()}));
}

}  // namespace caravan
