#include "caravan/train/trainer.h"

#include <cmath>
#include <limits>

#include "caravan/backend/device_memory.h"
#include "caravan/core/clock.h"
#include "caravan/core/error.h"
#include "caravan/ops/elementwise.h"

namespace caravan {
namespace {

double element(const TensorView& value, std::int64_t i) {
  switch (value.dtype()) {
    case DType::kFloat64:
      return value.data<double>()[i];
    case DType::kBFloat16:
      return to_double(value.data<BFloat16>()[i]);
    case DType::kFloat16:
      return to_double(value.data<Float16>()[i]);
    default:
      return to_double(value.data<float>()[i]);
  }
}

bool is_finite(const TensorView& stored) {
  const HostCopy copy(stored);
  const TensorView& value = copy.view();
  for (std::int64_t i = 0; i < value.numel(); ++i) {
    if (!std::isfinite(element(value, i))) {
      return false;
    }
  }
  return true;
}

/// Remembers the first tensor of a forward pass that is not finite.
class FirstNotFinite final : public Trace {
 public:
  void observe(std::string_view name, const TensorView& value) override {
    if (name_.empty() && !is_finite(value)) {
      name_ = fmt::format("the output of {}", name);
    }
  }
  const std::string& name() const { return name_; }

 private:
  std::string name_;
};

}  // namespace

AdamwOptions adamw_options(const RunConfig& config) {
  const OptimizerSection& section = config.optimizer;
  const bool is_scaled = config.dtype == DType::kFloat16;
  return {.weight_decay = section.weight_decay,
          .beta1 = section.betas.at(0),
          .beta2 = section.betas.at(1),
          .eps = section.eps,
          .no_decay = section.no_decay,
          .clip_norm = config.training.clip_norm.value_or(std::numeric_limits<double>::infinity()),
          .loss_scale = is_scaled
                            ? LossScalePolicy{.growth = 2.0,
                                              .backoff = 0.5,
                                              .growth_interval = config.training.loss_scale.growth_interval}
                            : LossScalePolicy(),
          .first_loss_scale = is_scaled ? config.training.loss_scale.initial : 1.0,
          .has_masters = section.master_weights,
          .seed = static_cast<std::uint64_t>(config.seed)};
}

SavePolicy save_policy(Recompute recompute) {
  switch (recompute) {
    case Recompute::kNone:
      return SavePolicy::none();
    case Recompute::kSelective:
      return SavePolicy::selective();
    case Recompute::kFull:
      return SavePolicy::full();
  }
  fail<InternalError>("training.recompute is {}", static_cast<int>(recompute));
}

/// What a trainer without a mesh needs of its own.
struct Trainer::Alone {
  explicit Alone(Llama& model) : store(model.parameters(), self, model.layout().at, {}) {}
  SelfCommunicator self;
  DataParallelStore store;
};

Trainer::Trainer(Llama& model, Backend& backend, const Options& options)
    : options_(options),
      alone_(std::make_unique<Alone>(model)),
      world_(alone_->self),
      store_(alone_->store),
      counts_loss_(true),
      executor_(std::make_unique<Executor>(model, backend, options.limits)),
      updater_(backend),
      no_scratch_("update", Buffer()),
      optimizer_(store_.shards(), options.optimizer, model.dtype(), updater_),
      begin_({}),
      update_({}) {}

Trainer::Trainer(Llama& model, Backend& backend, const Options& options, Together&& together)
    : options_(options),
      world_(together.world),
      store_(together.store),
      counts_loss_(together.counts_loss),
      executor_(std::move(together.executor)),
      updater_(together.updater != nullptr ? *together.updater : backend),
      no_scratch_("update", Buffer()),
      optimizer_(store_.shards(), options.optimizer, model.dtype(), updater_),
      loss_memory_(&updater_ != &backend ? backend.allocate(sizeof(double)) : Buffer()),
      begin_(together.recorded_groups),
      update_(together.recorded_groups) {}

Trainer::~Trainer() = default;

Executor& Trainer::executor() {
  auto* whole = dynamic_cast<Executor*>(executor_.get());
  CARAVAN_CHECK(whole != nullptr, "the model is cut into pipeline stages");
  return *whole;
}

Context Trainer::update_context() {
  const Context ctx = executor_->context();
  return {.backend = updater_,
          .stream = ctx.stream,
          .scratch = no_scratch_,
          .scalars = ctx.scalars,
          .dtype = ctx.dtype,
          .trace = nullptr};
}

/// What is enqueued again and again, on a device that can remember it.
void Trainer::recorded(RecordedWork& recording, const std::function<void(Context& ctx)>& work) {
  Context ctx = update_context();
  if (executor_->records() && loss_memory_.bytes() == 0) {
    recording.run(ctx, optimizer_.sums().raw(), [&] { work(ctx); });
  } else {
    work(ctx);
  }
}

/// The shards' gradients and the optimizer's sum of losses become those of this rank.
void Trainer::add_gradients(std::span<const Batch> micro_batches, std::int64_t valid_tokens) {
  Context ctx = executor_->context();
  ctx.scalars.loss_scale = optimizer_.update_state().loss_scale;
  const bool is_elsewhere = loss_memory_.bytes() > 0;
  const TensorView in_update = optimizer_.sums().rows(0, 1);
  const TensorView loss = is_elsewhere ? loss_memory_.view(0, DType::kFloat64, {1}) : in_update;
  if (is_elsewhere) {
    zero(ctx, {.x = loss});
  }
  const TimelineRange range(ctx.backend, "gradients");
  recorded(begin_, [&](Context& update) {
    store_.zero_gradients(ctx);
    optimizer_.begin(update);
  });
  executor_->add_gradients(micro_batches, valid_tokens, loss);
  if (!counts_loss_) {
    zero(update_context(), {.x = in_update});
  } else if (is_elsewhere) {
    copy(ctx, {.from = loss, .to = in_update});
  }
}

void Trainer::sum_over_ranks() {
  if (world_.size() > 1) {
    world_.all_reduce(optimizer_.sums());
  }
}

double Trainer::gradients(std::span<const Batch> micro_batches, std::int64_t valid_tokens) {
  add_gradients(micro_batches, valid_tokens);
  sum_over_ranks();
  const double loss_sum = optimizer_.finish().loss_sum;
  if (const double loss_scale = optimizer_.update_state().loss_scale; loss_scale != 1.0) {
    Context ctx = update_context();
    const Context sums{.backend = ctx.backend,
                       .stream = ctx.stream,
                       .scratch = ctx.scratch,
                       .scalars = ctx.scalars,
                       .dtype = accumulation_dtype(ctx.dtype)};
    for (const ParameterShard& shard : store_.shards()) {
      scale(sums, {.x = shard.grad, .factor = 1.0 / loss_scale});
    }
  }
  return valid_tokens > 0 ? loss_sum / static_cast<double>(valid_tokens) : 0.0;
}

StepResult Trainer::step(std::span<const Batch> micro_batches, std::int64_t valid_tokens, double lr) {
  const StopWatch watch;
  StepResult result;
  if (valid_tokens == 0) {
    return result;
  }
  ++steps_;
  Context ctx = executor_->context();
  ctx.scalars.lr = lr;
  add_gradients(micro_batches, valid_tokens);
  optimizer_.refresh_masters(update_context());
  recorded(update_, [&](Context& update) {
    const TimelineRange range(ctx.backend, "norm and update");
    optimizer_.add_squares(update);
    sum_over_ranks();
    optimizer_.update(update);
    store_.publish_values(ctx);
  });
  result.loss_scale = ctx.scalars.loss_scale;
  const UpdateState& update = optimizer_.finish();
  result.tokens = valid_tokens;
  result.loss = update.loss_sum / static_cast<double>(valid_tokens);
  result.grad_norm = update.grad_norm;
  if (!std::isfinite(result.loss)) {
    fail_not_finite(micro_batches, "loss", result.loss);
  }
  result.is_skipped = update.is_skipped != 0;
  // With the least scale it is not the scale that is at fault.
  if (result.is_skipped && result.loss_scale <= options_.optimizer.loss_scale.least) {
    fail_not_finite(micro_batches, "gradient norm", result.grad_norm);
  }
  result.updated = !result.is_skipped;
  result.seconds = watch.seconds();
  return result;
}

/// The first stored or computed value of this rank that is not finite; empty: it is on another rank.
std::string Trainer::find_culprit(std::span<const Batch> micro_batches) {
  std::string culprit;
  for (const ParameterShard& shard : store_.shards()) {
    if (culprit.empty() && !is_finite(shard.value)) {
      culprit = "the parameter " + shard.parameter->name();
    }
  }
  // The forward pass is run again by all ranks of a mesh or by none: its ports exchange.
  if (world_.all_reduce_value(std::int64_t{culprit.empty() ? 0 : 1}, ReduceOp::kMax) == 0) {
    FirstNotFinite trace;
    executor_->observe_forward(micro_batches, trace);
    culprit = trace.name();
  }
  // The backward pass runs from the last parameter to the first, and what it meets spoils everything before
  // it.
  const auto& shards = store_.shards();
  for (auto shard = shards.rbegin(); culprit.empty() && shard != shards.rend(); ++shard) {
    if (!is_finite(shard->grad)) {
      culprit = "the gradient of " + shard->parameter->name();
    }
  }
  return culprit;
}

void Trainer::fail_not_finite(std::span<const Batch> micro_batches, const char* what, double value) {
  const std::string culprit = find_culprit(micro_batches);
  fail<NumericError>(
      "the {} is {} at local step {}: the first value that is not finite is in {}; a smaller "
      "optimizer.lr or training.clip_norm often helps, and the data of this step is worth a look",
      what, std::abs(value), steps_,  // a NaN with its sign would print as -nan
      culprit.empty() ? "no stored tensor of this rank" : culprit);
}

}  // namespace caravan
