#include "caravan/ops/dropout.h"

#include "caravan/core/counter_rng.h"
#include "check.h"

namespace caravan {

using namespace ops_detail;

void dropout(const Context& ctx, const DropoutArgs& args) {
  const Shape shape = matrix_shape("dropout", "x", args.x);
  expect_real(ctx, "dropout", "x", args.x, shape);
  expect_real(ctx, "dropout", "y", args.y, shape);
  expect_int(ctx, "dropout", "rows", args.rows, {shape[0]});
  expect_int(ctx, "dropout", "places", args.places, {shape[0]});
  CARAVAN_CHECK(args.rate >= 0.0 && args.rate < 1.0, "dropout: the rate is {}", args.rate);
  CARAVAN_CHECK(args.scalars != nullptr, "dropout: no scalars");
  ctx.backend.dropout(args, ctx.stream);
}

std::uint64_t dropout_key(std::uint64_t seed, std::int64_t learner, std::int64_t step) {
  const std::uint64_t stream = stream_id("dropout") + static_cast<std::uint64_t>(learner);
  return CounterRng(seed, stream).bits(static_cast<std::uint64_t>(step));
}

}  // namespace caravan
