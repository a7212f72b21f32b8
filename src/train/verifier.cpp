#include "caravan/train/verifier.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "caravan/backend/device_memory.h"
#include "caravan/core/error.h"
#include "top_tokens.h"

namespace caravan {
namespace {

/// The rows of `batch` that are compared.
Batch first_rows(const Batch& batch, const SynchronousLayout& layout, std::int32_t pad_id) {
  return take_rows(batch, 0, std::min(batch.batch, rows_of_one_pass(layout)), batch.seq_len, pad_id);
}

Difference difference_of(const char* what, std::int64_t step, double value, double expected,
                         double tolerance) {
  Difference difference;
  difference.name = fmt::format("{} of step {}", what, step);
  difference.unequal = value == expected ? 0 : 1;
  difference.mean_absolute = std::abs(value - expected);
  difference.relative = value == expected ? 0.0 : std::abs(value - expected) / std::abs(expected);
  difference.tolerance = tolerance;
  return difference;
}

/// How far a number of the one-rank run has moved over the steps so far, to and fro, in units of what it is
/// now.
double moved(const std::vector<StepComparison>& steps, double StepComparison::*number) {
  double sum = 0.0;
  for (std::size_t i = 1; i < steps.size(); ++i) {
    sum += std::abs(steps[i].*number - steps[i - 1].*number);
  }
  return sum == 0.0 ? 0.0 : sum / std::abs(steps.back().*number);
}

/// Adds one rank's part to what was found of a tensor.
void add_part(Difference& to, int rank, const PartDifference& part, bool is_vector) {
  const bool is_first = part.unequal > 0 && to.unequal == 0;
  // What is no number is further off than every number.
  const bool is_further =
      part.relative > to.relative || (std::isnan(part.relative) && !std::isnan(to.relative));
  if (is_first) {
    to.detail =
        fmt::format("element [{}{}] is {} on rank {} and {} in the whole tensor", part.row,
                    is_vector ? "" : fmt::format(", {}", part.column), part.value, rank, part.expected);
  }
  if (is_first || is_further) {
    to.rank = rank;
    to.relative = part.relative;
  }
  to.unequal += part.unequal;
}

void mark_held(std::vector<bool>& held, const MatrixPart& part, const TensorView& whole) {
  const std::int64_t row_items = whole.rank() == 1 ? 1 : whole.dim(1);
  for (const std::int64_t row : part.rows) {
    if (row != MatrixPart::kNoRow) {
      const auto begin = held.begin() + static_cast<std::ptrdiff_t>(row * row_items + part.first_column);
      std::fill(begin, begin + static_cast<std::ptrdiff_t>(part.values.dim(1)), true);
    }
  }
}

/// All tensors of the model in forward order, whichever stage they are in.
std::vector<ParameterSpec> tensors_of(SynchronousRun& mesh) {
  return parameter_table(mesh.model().config(), mesh.layout().model.table);
}

/// A rank that has nothing of a tensor (it is in another stage, or no row falls to it) still takes part.
MatrixPart no_part(DType dtype) {
  static double nothing = 0.0;
  return {.rows = {}, .values = TensorView(&nothing, dtype, {0, 1})};
}

/// Null: another stage has it.
SegmentOutput* find_output(std::vector<SegmentOutput>& outputs, const std::string& name) {
  const auto found = std::find_if(outputs.begin(), outputs.end(),
                                  [&](const SegmentOutput& output) { return output.name == name; });
  return found == outputs.end() ? nullptr : &*found;
}

/// Where this rank's columns of the vocabulary begin.
std::int64_t first_logit(ParameterSet& parameters) {
  const Parameter* untied = parameters.find("output.weight");
  return (untied != nullptr ? *untied : parameters.at("tok_embeddings.weight")).region()[0].begin;
}

/// Elements that no rank has cannot be compared, and are as wrong as can be.
void add_missing(Difference& to, std::int64_t missing) {
  if (missing > 0) {
    to.unequal += missing;
    to.relative = std::numeric_limits<double>::quiet_NaN();
    to.detail = fmt::format("{} elements of it are on no rank", missing);
  }
}

}  // namespace

const Difference* Verification::first_difference() const {
  for (const auto* list : {&weights, &outputs, &gradients, &losses}) {
    const auto found =
        std::find_if(list->begin(), list->end(), [](const Difference& each) { return !each.is_within(); });
    if (found != list->end()) {
      return &*found;
    }
  }
  return nullptr;
}

RunConfig one_rank_config(const RunConfig& config, const MeshSizes& sizes) {
  const BatchGeometry geometry = batch_geometry(config, sizes);
  RunConfig one = config;
  one.parallel = ParallelSection{.dp_shard = 1};
  one.training.batch_size = geometry.batch_size;
  one.training.batch_size_per_rank = std::nullopt;
  one.training.micro_batch = geometry.micro_batch;
  return one;
}

void Verifier::compare(std::vector<Difference>& list, const std::string& name, const MatrixPart& part,
                       const TensorView& whole_tensor, double tolerance, TopTokens* top) {
  const HostCopy my_values(part.values);
  const HostCopy whole_copy(whole_tensor);
  const TensorView& whole = whole_copy.view();
  const MatrixPart mine{.rows = part.rows, .first_column = part.first_column, .values = my_values.view()};
  Difference difference;
  difference.name = name;
  difference.tolerance = tolerance;
  const double rms = is_root() ? root_mean_square(whole) : 0.0;
  double sum_absolute = 0.0;
  std::int64_t compared = 0;
  std::vector<bool> held(is_root() ? static_cast<std::size_t>(whole.numel()) : 0);
  visit_parts(on_.world, kRoot, mine, [&](int rank, const MatrixPart& values) {
    const PartDifference found = compare_part(values, whole, rms);
    add_part(difference, rank, found, whole.rank() == 1);
    sum_absolute += found.sum_absolute;
    compared += found.compared;
    mark_held(held, values, whole);
    if (top != nullptr) {
      top->place(values);
    }
  });
  if (is_root()) {
    add_missing(difference, std::count(held.begin(), held.end(), false));
    difference.mean_absolute = sum_absolute / static_cast<double>(std::max<std::int64_t>(compared, 1));
    list.push_back(std::move(difference));
  }
}

void Verifier::compare_models(const Batch& batch) {
  compare_weights();
  compare_outputs(first_rows(batch, on_.mesh.layout(), on_.pad_id));
  compare_gradients(batch);
}

/// Unit by unit: of sharded weights no rank has more than a few at a time.
void Verifier::compare_weights() {
  for (const ParameterSpec& spec : tensors_of(on_.mesh)) {
    const TensorView whole =
        is_root() ? on_.one_rank->model().parameters().at(spec.name).stored_value() : TensorView();
    const Parameter* parameter = on_.mesh.model().parameters().find(spec.name);
    if (parameter == nullptr) {
      compare(result_.weights, spec.name, no_part(on_.mesh.layout().model.dtype), whole, 0.0);
      continue;
    }
    const std::vector<int> group = {spec.group};
    const Lease lease(on_.mesh.store(), group);
    compare(result_.weights, spec.name, part_of_tensor(parameter->region(), parameter->value()), whole, 0.0);
  }
}

void Verifier::compare_outputs(const Batch& batch) {
  std::vector<SegmentOutput> mine = trace_outputs(on_.mesh, batch, on_.pad_id);
  std::vector<SegmentOutput> whole;
  if (is_root()) {
    whole = trace_outputs(*on_.one_rank, batch, on_.pad_id);
  }
  const TokenRowNumbers rows = token_rows(batch, on_.mesh.layout());
  const std::vector<std::string> names = output_names(on_.mesh.model().config());
  SegmentOutput nothing;
  for (std::size_t i = 0; i < names.size(); ++i) {
    MatrixPart part = no_part(on_.mesh.layout().model.dtype);
    if (SegmentOutput* output = find_output(mine, names[i])) {
      const bool is_logits = i + 1 == names.size();
      part = {.rows = is_logits ? rows.full : rows.stream,
              .first_column = is_logits ? first_logit(on_.mesh.model().parameters()) : 0,
              .values = output->view()};
    }
    SegmentOutput* expected = is_root() ? find_output(whole, names[i]) : &nothing;
    CARAVAN_CHECK(expected != nullptr, "one rank has no output {}", names[i]);
    compare_output(static_cast<std::int64_t>(i), names[i], part, *expected, batch);
  }
}

void Verifier::compare_output(std::int64_t number, const std::string& name, const MatrixPart& mine,
                              SegmentOutput& whole, const Batch& batch) {
  const ModelConfig& model = on_.mesh.model().config();
  const double tolerance = tolerances_for(batch).output(number);
  if (number <= 2 * model.n_layers) {
    compare(result_.outputs, name, mine, whole.view(), tolerance);
    return;
  }
  TopTokens top(whole.view(), batch);
  compare(result_.outputs, name, mine, whole.view(), tolerance, &top);
  for (const std::int64_t k : kTopK) {
    if (is_root() && k <= model.vocab_size) {
      result_.top_k.push_back({k, top.agreement(k)});
    }
  }
}

void Verifier::compare_gradients(const Batch& batch) {
  on_.mesh.gradients(batch);
  if (is_root()) {
    on_.one_rank->gradients(batch);
  }
  const std::vector<ParameterShard>& shards = on_.mesh.store().shards();
  const DType sums = accumulation_dtype(on_.mesh.layout().model.dtype);
  const ModelTolerances tolerances = tolerances_for(batch);
  std::vector<ParameterSpec> backwards = tensors_of(on_.mesh);
  std::reverse(backwards.begin(), backwards.end());
  for (const ParameterSpec& spec : backwards) {
    const auto shard = std::find_if(shards.begin(), shards.end(), [&](const ParameterShard& candidate) {
      return candidate.parameter->name() == spec.name;
    });
    const TensorView whole =
        is_root() ? on_.one_rank->model().parameters().at(spec.name).stored_grad() : TensorView();
    compare(result_.gradients, spec.name,
            shard == shards.end() ? no_part(sums) : part_of_tensor(shard->region, shard->grad), whole,
            tolerances.gradient(spec.group));
  }
}

void Verifier::compare_step(const Batch& batch, double lr) {
  const StepResult mesh = on_.mesh.step(batch, lr);
  if (!is_root()) {
    return;
  }
  const StepResult one = on_.one_rank->step(batch, lr);
  const auto step = static_cast<std::int64_t>(result_.steps.size()) + 1;
  result_.steps.push_back({.step = step,
                           .loss = mesh.loss,
                           .one_rank_loss = one.loss,
                           .grad_norm = mesh.grad_norm,
                           .one_rank_grad_norm = one.grad_norm});
  const ModelTolerances tolerances = tolerances_for(batch);
  result_.losses.push_back(
      difference_of("loss", step, mesh.loss, one.loss,
                    tolerances.loss(step, moved(result_.steps, &StepComparison::one_rank_loss))));
  result_.losses.push_back(difference_of(
      "gradient norm", step, mesh.grad_norm, one.grad_norm,
      tolerances.gradient_norm(step, moved(result_.steps, &StepComparison::one_rank_grad_norm))));
}

ModelTolerances Verifier::tolerances_for(const Batch& batch) const {
  return {on_.mesh.layout().model.dtype, on_.mesh.model().config(), batch.seq_len, batch.n_tokens(),
          on_.world.size()};
}

VerifierBytes verifier_bytes(const RunConfig& config, const ModelConfig& model, const MeshSizes& sizes,
                             DeviceKind kind) {
  TraceBytes most;
  std::int64_t rows = 0;
  for (int stage = 0; stage < sizes.pp; ++stage) {
    const SynchronousLayout layout(config, model, sizes, sizes.first_rank(MeshAxis::kPp, stage));
    rows = rows_of_one_pass(layout);
    const TraceBytes mine = trace_bytes(layout, model, rows / layout.geometry.data_ranks);
    most = {.all = std::max(most.all, mine.all), .logits = std::max(most.logits, mine.logits)};
  }
  const SynchronousLayout one_rank(one_rank_config(config, sizes), model, MeshSizes{}, 0);
  const TraceBytes whole = trace_bytes(one_rank, model, rows);
  // Another rank's part of a tensor at a time, and the logits of the mesh put together.
  const std::int64_t part = std::max(model.vocab_size, model.intermediate_size) * model.hidden_size *
                            static_cast<std::int64_t>(dtype_bytes(accumulation_dtype(config.dtype)));
  // Of a device also a copy of the rank's own part, and on the root of the whole tensor.
  const std::int64_t copy = kind == DeviceKind::kCuda ? part : 0;
  return {.rank = most.all + copy, .root = whole.all + whole.logits + std::max(part, most.logits) + copy};
}

}  // namespace caravan
