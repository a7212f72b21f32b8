#include "caravan/train/rounding.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

using namespace caravan;

TEST_CASE("the unit roundoff is half the distance from 1 to the next number", "[train][rounding]") {
  CHECK(unit_roundoff(DType::kFloat64).stored == std::numeric_limits<double>::epsilon() / 2);
  CHECK(unit_roundoff(DType::kFloat32).stored ==
        static_cast<double>(std::numeric_limits<float>::epsilon()) / 2);
  // 1 + u lies between two bfloat16 and goes to the even one; a hair more goes up.
  const double unit = unit_roundoff(DType::kBFloat16).stored;
  CHECK(to_float(to_bfloat16(static_cast<float>(1.0 + unit))) == 1.0F);
  CHECK(to_float(to_bfloat16(static_cast<float>(1.0 + 1.01 * unit))) > 1.0F);
  CHECK(unit_roundoff(DType::kBFloat16).summed == unit_roundoff(DType::kFloat32).summed);
}

TEST_CASE("tolerances follow the lengths of the sums and the precision", "[train][rounding]") {
  const auto tolerance = [](DType dtype, std::int64_t longest, std::int64_t tensors = 1) {
    return rounding_tolerance(dtype, {.longest = longest, .tensors = tensors});
  };
  CHECK(tolerance(DType::kFloat64, 1) == Approx(2 * std::sqrt(2.0) * 2 * std::ldexp(1.0, -53)));
  CHECK(tolerance(DType::kFloat32, 9999) > 20 * tolerance(DType::kFloat32, 9));
  CHECK(tolerance(DType::kFloat32, 64, 16) == Approx(4 * tolerance(DType::kFloat32, 64)));
  // Sums in float32 behind numbers stored in bfloat16: their length hardly matters.
  CHECK(tolerance(DType::kBFloat16, 9999) < 1.01 * tolerance(DType::kBFloat16, 1));
}

TEST_CASE("a real model's tolerances are tight in float64, usable in float32 and stated for bfloat16",
          "[train][rounding]") {
  const ModelConfig model = *model_preset("llama3.2-1b");
  const auto of = [&](DType dtype) { return ModelTolerances(dtype, model, 512, 2048, 8); };
  CHECK(of(DType::kFloat64).gradient() < 1e-10);
  CHECK(of(DType::kFloat32).logits() < 1e-3);
  CHECK(of(DType::kBFloat16).logits() < 0.25);
  CHECK(of(DType::kBFloat16).logits() > ModelTolerances(DType::kBFloat16, model, 512, 2048, 2).logits());
  CHECK(of(DType::kFloat32).output(0) < of(DType::kFloat32).output(1));
  const ModelTolerances single = of(DType::kFloat32);
  const std::int64_t head = 2 * model.n_layers + 1;
  // The head's gradient has one way behind it, the embedding's two.
  CHECK(single.gradient(0) == Approx(std::sqrt(2.0) * single.gradient(head)).epsilon(0.01));
  CHECK(single.gradient(head) > single.logits());  // the vocabulary is the longest sum
  CHECK(single.loss(1, 0.0) == Approx(single.gradient(head)));
  CHECK(single.gradient_norm(1, 0.0) == single.gradient());
  CHECK(single.loss(5, 0.0) < 1.3 * single.loss(1, 0.0));
  CHECK(single.loss(5, 0.5) == Approx(single.loss(5, 0.0) + 0.5 * single.gradient()));
  // A loss of 0, or twice the right one, never passes after a few steps that move it little.
  CHECK(of(DType::kBFloat16).loss(5, 0.1) < 0.35);
}
