#include "caravan/train/trainer.h"

#include <cmath>
#include <ranges>

#include "caravan/core/clock.h"
#include "caravan/core/error.h"
#include "caravan/optim/clip.h"

namespace caravan {
namespace {

bool is_finite(const TensorView& value) {
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

LocalTrainer::LocalTrainer(Llama& model, Backend& backend, const Options& options)
    : options_(options),
      executor_(model, backend, options.limits),
      optimizer_(model.parameters(), options.optimizer, model.dtype(), backend) {}

double LocalTrainer::gradients(const Batch& batch) {
  executor_.zero_gradients();
  const double sum = executor_.forward_backward(batch, batch.valid_tokens);
  return batch.valid_tokens > 0 ? sum / static_cast<double>(batch.valid_tokens) : 0.0;
}

StepResult LocalTrainer::step(const Batch& batch, double lr) {
  const StopWatch watch;
  StepResult result;
  if (batch.valid_tokens == 0) {
    return result;
  }
  ++steps_;
  result.tokens = batch.valid_tokens;
  result.loss = gradients(batch);
  if (!std::isfinite(result.loss)) {
    fail_not_finite(batch, "loss", result.loss);
  }
  const Context ctx = executor_.context();
  result.grad_norm = global_norm(ctx, executor_.model().parameters());
  if (!std::isfinite(result.grad_norm)) {
    fail_not_finite(batch, "gradient norm", result.grad_norm);
  }
  optimizer_.step(ctx, lr, clip_factor(result.grad_norm, options_.clip_norm));
  result.updated = true;
  result.seconds = watch.seconds();
  return result;
}

void LocalTrainer::fail_not_finite(const Batch& batch, const char* what, double value) {
  std::string culprit;
  for (const Parameter& parameter : executor_.model().parameters().all()) {
    if (culprit.empty() && !is_finite(parameter.stored_value())) {
      culprit = "the parameter " + parameter.name();
    }
  }
  if (culprit.empty()) {
    FirstNotFinite trace;
    executor_.observe(batch, trace);
    culprit = trace.name();
  }
  // The backward pass runs from the last parameter to the first, and what it meets spoils everything before
  // it.
  for (const Parameter& parameter : std::views::reverse(executor_.model().parameters().all())) {
    if (culprit.empty() && !is_finite(parameter.stored_grad())) {
      culprit = "the gradient of " + parameter.name();
    }
  }
  fail<NumericError>(
      "the {} is {} at local step {}: the first value that is not finite is in {}; a smaller "
      "optimizer.lr or training.clip_norm often helps, and the data of this step is worth a look",
      what, std::abs(value), steps_,  // a NaN with its sign would print as -nan
      culprit.empty() ? "no stored tensor" : culprit);
}

}  // namespace caravan
