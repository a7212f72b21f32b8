#include "caravan/train/trainer.h"

#include <array>
#include <cmath>

#include "caravan/backend/device_memory.h"
#include "caravan/core/clock.h"
#include "caravan/core/error.h"
#include "caravan/optim/clip.h"

namespace caravan {
namespace {

/// One sum, of the gradient norm.
constexpr std::int64_t kUpdateScratchBytes = 64;

bool is_finite(const TensorView& stored) {
  const HostCopy copy(stored);
  const TensorView& value = copy.view();
  for (std::int64_t i = 0; i < value.numel(); ++i) {
    const double x = value.dtype() == DType::kFloat64 ? value.data<double>()[i]
                                                      : static_cast<double>(value.data<float>()[i]);
    if (!std::isfinite(x)) {
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

AdamwOptions adamw_options(const OptimizerSection& section) {
  return {.weight_decay = section.weight_decay,
          .beta1 = section.betas.at(0),
          .beta2 = section.betas.at(1),
          .eps = section.eps,
          .no_decay = section.no_decay};
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
      update_scratch_("update", updater_.allocate(kUpdateScratchBytes)),
      optimizer_(store_.shards(), options.optimizer, model.dtype(), updater_) {}

Trainer::Trainer(Llama& model, Backend& backend, const Options& options, Together&& together)
    : options_(options),
      world_(together.world),
      store_(together.store),
      counts_loss_(together.counts_loss),
      executor_(std::move(together.executor)),
      updater_(together.updater != nullptr ? *together.updater : backend),
      update_scratch_("update", updater_.allocate(kUpdateScratchBytes)),
      optimizer_(store_.shards(), options.optimizer, model.dtype(), updater_) {}

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
          .scratch = update_scratch_,
          .scalars = ctx.scalars,
          .dtype = ctx.dtype,
          .trace = nullptr};
}

Trainer::Totals Trainer::run(std::span<const Batch> micro_batches, std::int64_t valid_tokens) {
  Context ctx = executor_->context();
  store_.zero_gradients(ctx);
  const double loss = executor_->add_gradients(micro_batches, valid_tokens);
  store_.finish_gradients(ctx);
  std::array<double, 2> totals = {counts_loss_ ? loss : 0.0,
                                  sum_squares_of_gradients(update_context(), store_.shards())};
  world_.all_reduce(TensorView(totals.data(), DType::kFloat64, {2}));
  return {totals[0], totals[1]};
}

double Trainer::gradients(std::span<const Batch> micro_batches, std::int64_t valid_tokens) {
  const Totals totals = run(micro_batches, valid_tokens);
  return valid_tokens > 0 ? totals.loss / static_cast<double>(valid_tokens) : 0.0;
}

StepResult Trainer::step(std::span<const Batch> micro_batches, std::int64_t valid_tokens, double lr) {
  const StopWatch watch;
  StepResult result;
  if (valid_tokens == 0) {
    return result;
  }
  ++steps_;
  const Totals totals = run(micro_batches, valid_tokens);
  result.tokens = valid_tokens;
  result.loss = totals.loss / static_cast<double>(valid_tokens);
  result.grad_norm = std::sqrt(totals.sum_squares);
  if (!std::isfinite(result.loss)) {
    fail_not_finite(micro_batches, "loss", result.loss);
  }
  if (!std::isfinite(result.grad_norm)) {
    fail_not_finite(micro_batches, "gradient norm", result.grad_norm);
  }
  Context ctx = executor_->context();
  optimizer_.step(update_context(), lr, clip_factor(result.grad_norm, options_.clip_norm));
  store_.publish_values(ctx);
  result.updated = true;
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
