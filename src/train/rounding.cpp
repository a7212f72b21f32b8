#include "caravan/train/rounding.h"

#include <algorithm>
#include <cmath>

#include "caravan/core/error.h"

namespace caravan {
namespace {

/// Norm, the widest products, an elementwise op or two, the sum with the stream: what a segment stores on the
/// way.
constexpr std::int64_t kTensorsPerSegment = 6;
/// Between the expected distance and what is taken for a fault; docs/notes/verify.md has what layouts really
/// reach.
constexpr double kMargin = 2.0;

}  // namespace

UnitRoundoff unit_roundoff(DType dtype) {
  const double float32 = std::ldexp(1.0, -24);
  switch (dtype) {
    case DType::kFloat64:
      return {std::ldexp(1.0, -53), std::ldexp(1.0, -53)};
    case DType::kFloat32:
      return {float32, float32};
    case DType::kBFloat16:
      return {std::ldexp(1.0, -8), float32};
    case DType::kFloat16:
      return {std::ldexp(1.0, -11), float32};
    default:
      fail<InternalError>("models are not computed in {}", dtype_name(dtype));
  }
}

double rounding_tolerance(DType dtype, const SumLengths& sums) {
  const UnitRoundoff unit = unit_roundoff(dtype);
  const auto root = [](std::int64_t count) { return std::sqrt(static_cast<double>(count)); };
  return kMargin * root(2 * sums.tensors) * (unit.stored + unit.summed * root(sums.longest));
}

ModelTolerances::ModelTolerances(DType dtype, const ModelConfig& model, std::int64_t seq_len,
                                 std::int64_t tokens, int ranks)
    : dtype_(dtype),
      forward_sum_(
          std::max({model.hidden_size, model.intermediate_size, model.n_heads * model.head_dim, seq_len})),
      longest_sum_(std::max({forward_sum_, model.vocab_size, tokens})),
      // p partial sums added one by one: as much rounding as p/2 tensors, since the first sums are the
      // smaller ones.
      tensors_per_segment_(kTensorsPerSegment + ranks / 2),
      head_(2 * model.n_layers + 1) {}

double ModelTolerances::on_the_way(std::int64_t segments, std::int64_t updates, std::int64_t longest) const {
  return rounding_tolerance(dtype_,
                            {.longest = longest, .tensors = 1 + (tensors_per_segment_ + updates) * segments});
}

double ModelTolerances::output(std::int64_t segment) const {
  return on_the_way(segment, 0, forward_sum_);
}

double ModelTolerances::gradient(std::int64_t segment) const {
  return on_the_way(2 * head_ - segment, 0, longest_sum_);
}

double ModelTolerances::loss(std::int64_t step, double moved) const {
  return on_the_way(head_, step - 1, longest_sum_) + gradient() * moved;
}

double ModelTolerances::gradient_norm(std::int64_t step, double moved) const {
  return on_the_way(2 * head_, step - 1, longest_sum_) + gradient() * moved;
}

}  // namespace caravan
