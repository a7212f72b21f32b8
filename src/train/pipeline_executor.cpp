#include "caravan/train/pipeline_executor.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>
#include <numeric>

#include "caravan/core/error.h"
#include "caravan/ops/elementwise.h"
#include "caravan/ops/optimizer_step.h"

namespace caravan {
namespace {

constexpr std::int64_t kUnlimited = std::numeric_limits<std::int64_t>::max() / 4;
constexpr int kActivationTag = 0;
constexpr int kGradientTag = 1;

std::int64_t stream_elements(const Llama& model, const Executor::Limits& limits) {
  return model.stream_shape(limits.batch * limits.seq_len).numel();
}

bool trains(const PipelineExecutor::Setup& setup) {
  return setup.limits.pass == Pass::kForwardBackward;
}

bool is_forward(PipelineOp op) {
  return op == PipelineOp::kForward || op == PipelineOp::kSendActivation ||
         op == PipelineOp::kReceiveActivation;
}

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

PipelineExecutor::PipelineExecutor(Llama& model, Backend& backend, const Setup& setup, const StepNeeds& needs)
    : model_(model),
      backend_(backend),
      setup_(setup),
      groups_(model, setup.store),
      scratch_arena_("scratch", backend.allocate(needs.scratch_bytes)),
      activations_(backend, model.dtype(), stream_elements(model, setup.limits), setup.ranks, kActivationTag),
      gradients_(backend, model.dtype(), trains(setup) ? stream_elements(model, setup.limits) : 0,
                 setup.ranks, kGradientTag) {
  setup.ranks.prepare_messages(std::array{kActivationTag, kGradientTag});
  const auto make_saved = [&] {
    std::vector<std::unique_ptr<Saved>> saved;
    for (const auto& segment : model.segments()) {
      saved.push_back(segment->make_saved());
    }
    return saved;
  };
  const int slots = trains(setup) ? most_slots(setup.shape, setup.ranks.rank()) : 0;
  for (int i = 0; i < slots; ++i) {
    slots_.push_back({Arena("activations of a micro-batch", backend.allocate(needs.saved_bytes / slots)),
                      make_saved(),
                      {},
                      {},
                      {}});
  }
  passing_ = make_saved();
  for (std::int64_t i = 0; i < setup.shape.micro_batches; ++i) {
    device_batches_.emplace_back(backend, setup.limits.room());
  }
}

StepNeeds PipelineExecutor::measure(Llama& model, CountingBackend& counting, const Setup& setup) {
  PipelineExecutor executor(model, counting, setup, StepNeeds{kUnlimited, kUnlimited, 0, {}});
  for (const DeviceBatch& batch : executor.device_batches_) {
    executor.tokens_.push_back(batch.shape(setup.limits.batch, setup.limits.seq_len));
  }
  StepNeeds needs;
  if (trains(setup)) {
    const Buffer loss_sum = counting.allocate(sizeof(double));
    executor.walk_training(executor.tokens_, loss_sum.view(0, DType::kFloat64, {1}));
    needs.work = counting.work();
  }
  executor.walk_losses(executor.tokens_, nullptr);
  if (!trains(setup)) {
    needs.work = counting.work();
  }
  needs.saved_bytes = executor.saved_high_water();
  needs.scratch_bytes = executor.scratch_high_water();
  needs.message_bytes = executor.message_bytes();
  return needs;
}

Context PipelineExecutor::context(Arena& scratch, Trace* trace) {
  return {.backend = backend_,
          .stream = stream_,
          .scratch = scratch,
          .scalars = scalars_,
          .dtype = model_.dtype(),
          .trace = trace,
          .background = setup_.background};
}

Context PipelineExecutor::training_context(Arena& scratch) {
  Context ctx = context(scratch, nullptr);
  ctx.dropout = setup_.limits.dropout;
  return ctx;
}

const Range& PipelineExecutor::segments_of(int stage) const {
  return model_.stages().at(static_cast<std::size_t>(setup_.shape.chunk_of(stage)));
}

/// This rank's list for so many micro-batches: an epoch's last step may have fewer than the others.
const std::vector<PipelineStep>& PipelineExecutor::list_of(std::size_t micro_batches) {
  auto found = lists_.find(micro_batches);
  if (found == lists_.end()) {
    PipelineShape shape = setup_.shape;
    shape.micro_batches = static_cast<std::int64_t>(micro_batches);
    const auto rank = static_cast<std::size_t>(setup_.ranks.rank());
    found = lists_.emplace(micro_batches, std::move(make_pipeline(shape).ranks.at(rank))).first;
  }
  return found->second;
}

const PipelineExecutor::Tokens& PipelineExecutor::upload(std::span<const Batch> micro_batches) {
  CARAVAN_CHECK(micro_batches.size() <= device_batches_.size(), "{} micro-batches, room for {}",
                micro_batches.size(), device_batches_.size());
  tokens_.clear();
  for (std::size_t i = 0; i < micro_batches.size(); ++i) {
    tokens_.push_back(device_batches_[i].upload(micro_batches[i], stream_));
  }
  return tokens_;
}

void PipelineExecutor::add_gradients(std::span<const Batch> micro_batches, std::int64_t valid_tokens,
                                     const TensorView& loss_sum) {
  CARAVAN_CHECK(trains(setup_), "this executor was built for the forward pass only");
  scalars_.inv_valid_tokens = valid_tokens > 0 ? 1.0 / static_cast<double>(valid_tokens) : 0.0;
  walk_training(upload(micro_batches), loss_sum);
}

double PipelineExecutor::loss_sum(std::span<const Batch> micro_batches) {
  return walk_losses(upload(micro_batches), nullptr);
}

void PipelineExecutor::observe_forward(std::span<const Batch> micro_batches, Trace& trace) {
  walk_losses(upload(micro_batches), &trace);
}

std::vector<double> PipelineExecutor::logits(const Batch& batch, std::int64_t begin, std::int64_t end) {
  std::vector<double> result;
  walk_forward(upload({&batch, 1}), nullptr, [&](Context& ctx, const TokenBatch&, ResidualStream& stream) {
    const std::int64_t columns = model_.head().columns();
    const TensorView logits = ctx.allocate("logits", {end - begin, columns});
    model_.head().logits(ctx, stream, begin, end, logits);
    result.resize(static_cast<std::size_t>((end - begin) * columns));
    copy(ctx, {.from = logits, .to = TensorView(result.data(), DType::kFloat64, logits.shape())});
  });
  return result;
}

void PipelineExecutor::walk_training(const Tokens& tokens, const TensorView& loss_sum) {
  for (const PipelineStep& step : list_of(tokens.size())) {
    const auto number = static_cast<std::size_t>(step.micro_batch);
    const auto note = [&](double begin) {
      if (recorded_ != nullptr) {
        recorded_->push_back({step, begin, now_seconds()});
      }
    };
    const auto now = [&] { return recorded_ != nullptr ? now_seconds() : 0.0; };
    if (is_message(step.op)) {
      const double begin = now();
      message(step, tokens[number]);
      note(begin);
      continue;
    }
    arrive();
    const double begin = now();
    compute(step, tokens[number], number + 1 == tokens.size() ? MicroBatch::kLast : MicroBatch::kMoreFollow,
            loss_sum);
    note(begin);
  }
  activations_.finish();
  gradients_.finish();
  setup_.store.finish_gradients();
}

void PipelineExecutor::message(const PipelineStep& step, const TokenBatch& tokens) {
  Slot& slot = slot_of(step);
  switch (step.op) {
    case PipelineOp::kSendActivation:
      return activations_.send(step.peer);
    case PipelineOp::kSendGradient:
      return gradients_.send(step.peer);
    case PipelineOp::kReceiveActivation:
      slot.input = slot.arena.allocate("stage input", model_.dtype(), model_.stream_shape(tokens.n_tokens()));
      return arriving_.push_back(setup_.ranks.start_receive(slot.input, step.peer, kActivationTag));
    default:
      slot.gradient = gradients_.take(model_.stream_shape(tokens.n_tokens()));
      return arriving_.push_back(setup_.ranks.start_receive(slot.gradient, step.peer, kGradientTag));
  }
}

/// What the next computation needs is there.
void PipelineExecutor::arrive() {
  for (Pending& pending : arriving_) {
    pending.wait();
  }
  arriving_.clear();
}

void PipelineExecutor::compute(const PipelineStep& step, const TokenBatch& tokens, MicroBatch micro_batch,
                               const TensorView& loss_sum) {
  if (step.op == PipelineOp::kForward) {
    return forward(step, tokens);
  }
  if (step.op == PipelineOp::kBackwardWeight) {
    return backward_weight(step, tokens, micro_batch);
  }
  if (is_last(step.stage)) {
    head_backward(step, tokens, micro_batch, loss_sum);
  }
  if (step.op == PipelineOp::kBackward) {
    backward(step, tokens, micro_batch);
  } else {
    backward_input(step, tokens);
  }
}

/// The stage's segments forward; with a slot, what the policy keeps goes there.
void PipelineExecutor::run_segments(Context& ctx, const PipelineStep& step, const TokenBatch& tokens,
                                    ResidualStream& stream, Slot* slot) {
  const TimelineRange timeline(ctx.backend, "stage forward");
  const Range& range = segments_of(step.stage);
  for (std::int64_t i = range.begin; i < range.end; ++i) {
    const auto number = static_cast<std::size_t>(i);
    const Lease lease = groups_.lease(number, LeaseUse::kForward);
    if (i + 1 < range.end) {
      groups_.prefetch(number + 1, LeaseUse::kForward);
    }
    Saved& saved = slot != nullptr ? *slot->saved[number] : *passing_[number];
    saved.begin(slot != nullptr ? &slot->arena : nullptr,
                slot != nullptr ? setup_.limits.policy : SavePolicy::inference());
    const ArenaScope scope(ctx.scratch);
    model_.segments()[number]->forward(ctx, tokens, stream, saved);
    if (slot != nullptr) {
      saved.forget_scratch();
    } else {
      saved.finish();
    }
  }
}

void PipelineExecutor::forward(const PipelineStep& step, const TokenBatch& tokens) {
  Slot& slot = slot_of(step);
  Context ctx = training_context(scratch_arena_);
  const ArenaScope scope(scratch_arena_);
  const Shape shape = model_.stream_shape(tokens.n_tokens());
  ResidualStream stream{.x = slot.input, .delta = ctx.allocate("delta", shape)};
  run_segments(ctx, step, tokens, stream, &slot);
  slot.output = is_last(step.stage) ? slot.arena.allocate("head input", model_.dtype(), shape)
                                    : activations_.take(shape);
  add(ctx, {.x = stream.x, .z = stream.delta, .y = slot.output});
}

void PipelineExecutor::head_backward(const PipelineStep& step, const TokenBatch& tokens,
                                     MicroBatch micro_batch, const TensorView& loss_sum) {
  Slot& slot = slot_of(step);
  Context ctx = training_context(scratch_arena_);
  const ArenaScope scope(scratch_arena_);
  const TimelineRange timeline(ctx.backend, "head");
  const TensorView losses = ctx.allocate_sums("losses", {tokens.n_tokens()});
  slot.gradient = gradients_.take(model_.stream_shape(tokens.n_tokens()));
  ResidualStream stream{.x = slot.output, .delta = {}};
  {
    const Lease lease = groups_.lease(groups_.head(), LeaseUse::kBackward);
    groups_.prefetch(static_cast<std::size_t>(segments_of(step.stage).end - 1), LeaseUse::kBackward);
    model_.head().loss_and_backward(ctx, tokens, stream, losses, slot.gradient);
  }
  groups_.commit(groups_.head(), micro_batch);
  sum(ctx, {.x = losses, .result = loss_sum});
}

void PipelineExecutor::backward(const PipelineStep& step, const TokenBatch& tokens, MicroBatch micro_batch) {
  Slot& slot = slot_of(step);
  Context ctx = training_context(scratch_arena_);
  const TimelineRange timeline(ctx.backend, "stage backward");
  const Range& range = segments_of(step.stage);
  for (std::int64_t i = range.end; i-- > range.begin;) {
    const auto number = static_cast<std::size_t>(i);
    {
      const Lease lease = groups_.lease(number, LeaseUse::kBackward);
      if (i > range.begin) {
        groups_.prefetch(number - 1, LeaseUse::kBackward);
      }
      model_.segments()[number]->backward(ctx, tokens, slot.gradient, *slot.saved[number]);
      slot.saved[number]->finish();
    }
    groups_.commit(number, micro_batch);
  }
  slot.arena.release(0);
}

/// The stage's input gradient alone. What the weight gradients will need is put into the slot: everything a
/// segment computes on the way, and the gradient of its output as it was before the segment's own part was
/// added to it.
void PipelineExecutor::backward_input(const PipelineStep& step, const TokenBatch& tokens) {
  Slot& slot = slot_of(step);
  Context ctx = training_context(scratch_arena_);
  Context kept = training_context(slot.arena);
  const TimelineRange timeline(ctx.backend, "stage backward, input");
  const Range& range = segments_of(step.stage);
  for (std::int64_t i = range.end; i-- > range.begin;) {
    const auto number = static_cast<std::size_t>(i);
    const Lease lease = groups_.lease(number, LeaseUse::kBackward);
    if (i > range.begin) {
      groups_.prefetch(number - 1, LeaseUse::kBackward);
    }
    const Segment& segment = *model_.segments()[number];
    const TensorView before = kept.allocate("output gradient", slot.gradient.shape());
    copy(ctx, {.from = slot.gradient, .to = before});
    segment.backward_input(kept, tokens, before, *slot.saved[number]);
    const ArenaScope scope(scratch_arena_);
    segment.finish_input(ctx, tokens, slot.gradient, *slot.saved[number]);
  }
}

void PipelineExecutor::backward_weight(const PipelineStep& step, const TokenBatch& tokens,
                                       MicroBatch micro_batch) {
  Slot& slot = slot_of(step);
  Context ctx = training_context(scratch_arena_);
  const TimelineRange timeline(ctx.backend, "stage backward, weights");
  const Range& range = segments_of(step.stage);
  for (std::int64_t i = range.end; i-- > range.begin;) {
    const auto number = static_cast<std::size_t>(i);
    {
      const Lease lease = groups_.lease(number, LeaseUse::kBackward);
      const ArenaScope scope(scratch_arena_);
      model_.segments()[number]->backward_weight(ctx, tokens, *slot.saved[number]);
    }
    groups_.commit(number, micro_batch);
  }
  for (std::int64_t i = range.end; i-- > range.begin;) {
    slot.saved[static_cast<std::size_t>(i)]->finish();
  }
  slot.arena.release(0);
}

double PipelineExecutor::walk_losses(const Tokens& tokens, Trace* trace) {
  double sum = 0.0;
  walk_forward(tokens, trace, [&](Context& ctx, const TokenBatch& batch, ResidualStream& stream) {
    const TensorView losses = ctx.allocate_sums("losses", {batch.n_tokens()});
    model_.head().loss(ctx, batch, stream, losses);
    sum += backend_.device().kind == DeviceKind::kNone ? 0.0 : sum_on_host(losses);
  });
  return sum;
}

/// The forward part of the list: nothing is kept, so a rank has one stream, which every stage of every
/// micro-batch passes through.
void PipelineExecutor::walk_forward(const Tokens& tokens, Trace* trace, const AtHead& at_head) {
  Context ctx = context(scratch_arena_, trace);
  const ArenaScope all(scratch_arena_);
  const Shape most = model_.stream_shape(tokens.front().n_tokens());
  const TensorView room = ctx.allocate("stream", most);
  const TensorView delta = ctx.allocate("delta", most);
  for (const PipelineStep& step : list_of(tokens.size())) {
    if (!is_forward(step.op)) {
      continue;
    }
    const TokenBatch& batch = tokens[static_cast<std::size_t>(step.micro_batch)];
    const Shape shape = model_.stream_shape(batch.n_tokens());
    ResidualStream stream{.x = room.rows(0, shape[0]), .delta = delta.rows(0, shape[0])};
    if (step.op == PipelineOp::kSendActivation) {
      activations_.send(step.peer);
    } else if (step.op == PipelineOp::kReceiveActivation) {
      arriving_.push_back(setup_.ranks.start_receive(stream.x, step.peer, kActivationTag));
    } else {
      arrive();
      run_segments(ctx, step, batch, stream, nullptr);
      if (is_last(step.stage)) {
        const ArenaScope scope(scratch_arena_);
        const Lease lease = groups_.lease(groups_.head(), LeaseUse::kForward);
        at_head(ctx, batch, stream);
      } else {
        add(ctx, {.x = stream.x, .z = stream.delta, .y = activations_.take(shape)});
      }
    }
  }
  activations_.finish();
}

std::int64_t PipelineExecutor::arena_bytes() const {
  std::int64_t total = scratch_arena_.capacity();
  for (const Slot& slot : slots_) {
    total += slot.arena.capacity();
  }
  return total;
}

std::int64_t PipelineExecutor::saved_high_water() const {
  std::int64_t most = 0;
  for (const Slot& slot : slots_) {
    most = std::max(most, slot.arena.high_water());
  }
  return most * static_cast<std::int64_t>(slots_.size());
}

std::int64_t PipelineExecutor::batch_bytes() const {
  return std::accumulate(device_batches_.begin(), device_batches_.end(), std::int64_t{0},
                         [](std::int64_t sum, const DeviceBatch& batch) { return sum + batch.bytes(); });
}

}  // namespace caravan
