// Rotary position embedding on interleaved pairs (Su et al. 2021, eq. 34). The derivation is
// docs/derivations/rope.md.
#pragma once

#include "caravan/backend/op_args.h"
#include "kernels/reference/scalar.h"

namespace caravan::reference {

/// Every position is a row of the tables; throws InternalError else.
inline void check_positions(const RopeArgs& args) {
  for (const std::int32_t position : elements<std::int32_t>(args.positions)) {
    CARAVAN_CHECK(position >= 0 && position < args.cos.dim(0),
                  "position {} is not a row of the rotary tables, which have {} rows", position,
                  args.cos.dim(0));
  }
}

/// Forward: (a, b) → (a cos − b sin, a sin + b cos). Its transpose, the backward pass, is the same with −sin.
template <class T>
void rope(const RopeArgs& args) {
  check_positions(args);
  const auto x = elements<T>(args.x);
  const auto positions = elements<std::int32_t>(args.positions);
  const auto cos_table = elements<T>(args.cos);
  const auto sin_table = elements<T>(args.sin);
  const auto half = static_cast<std::size_t>(args.head_dim / 2);
  const auto pairs = static_cast<std::size_t>(args.x.dim(1)) / 2;
  const T sign = args.direction == RopeDirection::kForward ? T{1} : T{-1};
  for (std::size_t t = 0; t < positions.size(); ++t) {
    const std::size_t table_row = static_cast<std::size_t>(positions[t]) * half;
    for (std::size_t pair = 0; pair < pairs; ++pair) {
      const T cosine = cos_table[table_row + pair % half];
      const T sine = sign * sin_table[table_row + pair % half];
      T& first = x[2 * (t * pairs + pair)];
      T& second = x[2 * (t * pairs + pair) + 1];
      const T rotated = first * cosine - second * sine;
      second = first * sine + second * cosine;
      first = rotated;
    }
  }
}

}  // namespace caravan::reference
