#include "caravan/train/executor.h"

#include <limits>

#include "caravan/ops/elementwise.h"
#include "caravan/ops/optimizer_step.h"

namespace caravan {
namespace {

constexpr std::int64_t kUnlimited = std::numeric_limits<std::int64_t>::max() / 4;

}  // namespace

Executor::Executor(Llama& model, Backend& backend, const Limits& limits)
    : Executor(model, backend, limits,
               measure(model.config(), model.layout(), model.ports(), limits, backend.kind())) {}

Executor::Executor(Llama& model, Backend& backend, const Limits& limits, const StepNeeds& needs,
                   const Surroundings& around)
    : model_(model),
      backend_(backend),
      local_store_(model.parameters()),
      groups_(model, around.store != nullptr ? *around.store : local_store_),
      background_(around.background),
      limits_(limits),
      device_batch_(backend, limits.room()),
      saved_arena_("activations", backend.allocate(needs.saved_bytes)),
      scratch_arena_("scratch", backend.allocate(needs.scratch_bytes)),
      records_(limits.records && around.can_record && backend.can_record()),
      recorded_(around.recorded_groups) {
  for (const auto& segment : model.segments()) {
    saved_.push_back(segment->make_saved());
  }
}

StepNeeds Executor::measure(const ModelConfig& config, const Llama::Layout& layout, const Ports& ports,
                            const Limits& limits, DeviceKind kind) {
  CountingBackend counting(kind);
  Llama model(config, layout, counting, ports);
  return measure(model, counting, limits, nullptr);
}

StepNeeds Executor::measure(Llama& model, CountingBackend& counting, const Limits& limits,
                            ParamStore* store) {
  Executor executor(model, counting, limits, StepNeeds{kUnlimited, kUnlimited, 0, {}}, {.store = store});
  executor.run_on_shapes(limits.pass);
  StepNeeds needs{executor.saved_high_water(), executor.scratch_high_water(), 0, counting.work()};
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
  Context ctx = context(nullptr);
  const ArenaScope scope(scratch_arena_);
  const TensorView losses = ctx.allocate_sums("losses", {tokens.n_tokens()});
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
          .trace = trace,
          .background = background_};
}

void Executor::forward_backward(Context& ctx, const TokenBatch& tokens, const TensorView& losses,
                                MicroBatch micro_batch) {
  ctx.dropout = limits_.dropout;
  const TimelineRange range(backend_, "forward and backward");
  ResidualStream stream{.x = {}, .delta = ctx.allocate("delta", model_.stream_shape(tokens.n_tokens()))};
  const TensorView g = ctx.allocate("stream gradient", model_.stream_shape(tokens.n_tokens()));
  const auto& segments = model_.segments();
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const TimelineRange forward_range(backend_, "segment forward");
    const Lease lease = groups_.lease(i, LeaseUse::kForward);
    groups_.prefetch(i + 1, i + 1 < segments.size() ? LeaseUse::kForward : LeaseUse::kBackward);
    saved_[i]->begin(&saved_arena_, limits_.policy);
    const ArenaScope scope(ctx.scratch);
    segments[i]->forward(ctx, tokens, stream, *saved_[i]);
    saved_[i]->forget_scratch();
  }
  {
    const TimelineRange head_range(backend_, "head");
    const Lease lease = groups_.lease(groups_.head(), LeaseUse::kBackward);
    groups_.prefetch(segments.size() - 1, LeaseUse::kBackward);
    model_.head().loss_and_backward(ctx, tokens, stream, losses, g);
  }
  groups_.commit(groups_.head(), micro_batch);
  for (std::size_t i = segments.size(); i-- > 0;) {
    {
      const TimelineRange backward_range(backend_, "segment backward");
      const Lease lease = groups_.lease(i, LeaseUse::kBackward);
      if (i > 0) {
        groups_.prefetch(i - 1, LeaseUse::kBackward);
      }
      segments[i]->backward(ctx, tokens, g, *saved_[i]);
      saved_[i]->finish();
    }
    groups_.commit(i, micro_batch);
  }
}

void Executor::forward(Context& ctx, const TokenBatch& tokens, ResidualStream& stream) {
  const auto& segments = model_.segments();
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const Lease lease = groups_.lease(i, LeaseUse::kForward);
    groups_.prefetch(i + 1, LeaseUse::kForward);
    saved_[i]->begin(nullptr, SavePolicy::inference());
    const ArenaScope scope(ctx.scratch);
    segments[i]->forward(ctx, tokens, stream, *saved_[i]);
    saved_[i]->finish();
  }
}

void Executor::loss(Context& ctx, const TokenBatch& tokens, const TensorView& losses) {
  ResidualStream stream{.x = ctx.allocate("stream", model_.stream_shape(tokens.n_tokens())),
                        .delta = ctx.allocate("delta", model_.stream_shape(tokens.n_tokens()))};
  forward(ctx, tokens, stream);
  const Lease lease = groups_.lease(groups_.head(), LeaseUse::kForward);
  model_.head().loss(ctx, tokens, stream, losses);
}

double Executor::loss(const Batch& batch) {
  const TokenBatch tokens = device_batch_.upload(batch, stream_);
  Context ctx = context(nullptr);
  const ArenaScope scope(scratch_arena_);
  const TensorView losses = ctx.allocate_sums("losses", {tokens.n_tokens()});
  loss(ctx, tokens, losses);
  return sum_on_host(losses);
}

std::vector<double> Executor::logits(const Batch& batch, std::int64_t begin, std::int64_t end) {
  const TokenBatch tokens = device_batch_.upload(batch, stream_);
  Context ctx = context(nullptr);
  const std::int64_t vocab = model_.head().columns();
  std::vector<double> result(static_cast<std::size_t>((end - begin) * vocab));
  const ArenaScope scope(scratch_arena_);
  ResidualStream stream{.x = ctx.allocate("stream", model_.stream_shape(tokens.n_tokens())),
                        .delta = ctx.allocate("delta", model_.stream_shape(tokens.n_tokens()))};
  forward(ctx, tokens, stream);
  const TensorView logits = ctx.allocate("logits", {end - begin, vocab});
  const Lease lease = groups_.lease(groups_.head(), LeaseUse::kForward);
  model_.head().logits(ctx, stream, begin, end, logits);
  copy(ctx, {.from = logits, .to = TensorView(result.data(), DType::kFloat64, logits.shape())});
  return result;
}

void Executor::add_gradients(std::span<const Batch> micro_batches, std::int64_t valid_tokens,
                             const TensorView& loss_sum) {
  CARAVAN_CHECK(limits_.pass == Pass::kForwardBackward, "this executor was built for the forward pass only");
  Context ctx = context(nullptr);
  scalars_.inv_valid_tokens = valid_tokens > 0 ? 1.0 / static_cast<double>(valid_tokens) : 0.0;
  for (std::size_t i = 0; i < micro_batches.size(); ++i) {
    // The store hears which micro-batch is the step's last.
    const MicroBatch number = i + 1 == micro_batches.size() ? MicroBatch::kLast : MicroBatch::kMoreFollow;
    const TokenBatch tokens = device_batch_.upload(micro_batches[i], stream_);
    const ArenaScope scope(scratch_arena_);
    const TensorView losses = ctx.allocate_sums("losses", {tokens.n_tokens()});
    if (records_) {
      ParamStore& store = groups_.store();
      store.settle();
      recorded_.run(ctx, {tokens.batch, tokens.seq_len, number == MicroBatch::kLast, tokens.mask},
                    losses.raw(), [&] {
                      pass(ctx, tokens, losses, number, loss_sum);
                      store.settle();
                    });
    } else {
      pass(ctx, tokens, losses, number, loss_sum);
    }
  }
}

void Executor::pass(Context& ctx, const TokenBatch& tokens, const TensorView& losses, MicroBatch micro_batch,
                    const TensorView& loss_sum) {
  forward_backward(ctx, tokens, losses, micro_batch);
  sum(ctx, {.x = losses, .result = loss_sum});
  if (micro_batch == MicroBatch::kLast) {
    groups_.store().finish_gradients();
  }
}

double Executor::loss_sum(std::span<const Batch> micro_batches) {
  double sum = 0.0;
  for (const Batch& batch : micro_batches) {
    sum += loss(batch);
  }
  return sum;
}

void Executor::observe_forward(std::span<const Batch> micro_batches, Trace& trace) {
  for (const Batch& batch : micro_batches) {
    const TokenBatch tokens = device_batch_.upload(batch, stream_);
    Context ctx = context(&trace);
    const ArenaScope scope(scratch_arena_);
    loss(ctx, tokens, ctx.allocate_sums("losses", {tokens.n_tokens()}));
  }
}

}  // namespace caravan
