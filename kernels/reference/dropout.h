// Dropout with a mask from a counter: the same elements are dropped wherever they are computed.
#pragma once

#include <array>

#include "caravan/backend/op_args.h"
#include "caravan/core/counter_rng.h"
#include "kernels/reference/scalar.h"

namespace caravan::reference {

/// Words of 32 bits below it are dropped: rate · 2³², rounded down. rate in [0, 1).
inline std::uint32_t dropout_threshold(double rate) {
  return static_cast<std::uint32_t>(rate * 0x1p32);
}

/// The step's key as Philox takes it.
inline std::array<std::uint32_t, 2> philox_key(std::uint64_t key) {
  return {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32U)};
}

/// y = x · m / (1 − rate)
template <class T>
void dropout(const DropoutArgs& args) {
  const auto x = elements<T>(args.x);
  const auto y = elements<T>(args.y);
  const auto* rows = args.rows.data<std::int32_t>();
  const auto* places = args.places.data<std::int32_t>();
  const auto key = philox_key(args.scalars->dropout_key);
  const std::uint32_t threshold = dropout_threshold(args.rate);
  const T factor = static_cast<T>(1.0 / (1.0 - args.rate));
  const std::int64_t width = args.x.dim(1);
  for (std::int64_t t = 0; t < args.x.dim(0); ++t) {
    for (std::int64_t d = 0; d < width; ++d) {
      const auto words = philox4x32({static_cast<std::uint32_t>(d / 4), static_cast<std::uint32_t>(places[t]),
                                     static_cast<std::uint32_t>(rows[t]), args.site},
                                    key);
      const auto at = static_cast<std::size_t>(t * width + d);
      y[at] = words.at(static_cast<std::size_t>(d % 4)) < threshold ? T{} : x[at] * factor;
    }
  }
}

}  // namespace caravan::reference
