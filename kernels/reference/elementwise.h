// Elementwise ops, copies between layouts and dtypes, random values.
#pragma once

#include <array>
#include <cstring>
#include <type_traits>

#include "caravan/backend/op_args.h"
#include "caravan/core/counter_rng.h"
#include "kernels/reference/scalar.h"

namespace caravan::reference {

/// y = x + z
template <class T>
void add(const AddArgs& args) {
  const auto x = elements<T>(args.x);
  const auto z = elements<T>(args.z);
  const auto y = elements<T>(args.y);
  for (std::size_t i = 0; i < y.size(); ++i) {
    y[i] = x[i] + z[i];
  }
}

/// x *= factor
template <class T>
void scale(const ScaleArgs& args) {
  for (T& x : elements<T>(args.x)) {
    x *= static_cast<T>(args.factor);
  }
}

/// x = 0, any dtype
inline void zero(const ZeroArgs& args) {
  CARAVAN_CHECK(args.x.is_contiguous(), "{} must be contiguous", args.x.str());
  if (args.x.numel() > 0) {
    std::memset(args.x.raw(), 0, static_cast<std::size_t>(args.x.bytes()));
  }
}

/// y[i, j] = std · normal(stream, (row_begin + i) · global_cols + col_begin + j)
template <class T>
void random_normal(const RandomNormalArgs& args) {
  const CounterRng rng(args.seed, args.stream);
  const auto y = elements<T>(args.y);
  const std::int64_t cols = args.y.dim(args.y.rank() - 1);
  for (std::size_t element = 0; element < y.size(); ++element) {
    const auto i = static_cast<std::int64_t>(element) / cols;
    const auto j = static_cast<std::int64_t>(element) % cols;
    const std::int64_t index = (args.row_begin + i) * args.global_cols + args.col_begin + j;
    y[element] = static_cast<T>(args.standard_deviation * rng.normal(static_cast<std::uint64_t>(index)));
  }
}

// ---- copy

template <class To, class From>
To convert(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (std::is_same_v<From, BFloat16> || std::is_same_v<From, Float16>) {
    return convert<To>(to_float(value));
  } else if constexpr (std::is_same_v<To, BFloat16>) {
    return to_bfloat16(static_cast<float>(value));
  } else if constexpr (std::is_same_v<To, Float16>) {
    return to_float16(static_cast<float>(value));
  } else {
    return static_cast<To>(value);
  }
}

/// Calls body(from_offset, to_offset) in elements for every row (last dim) of two views of equal shape.
template <class Body>
void for_each_row(const TensorView& from, const TensorView& to, Body&& body) {
  CARAVAN_CHECK(from.shape() == to.shape(), "copy of {} to {}", from.str(), to.str());
  if (from.numel() == 0) {
    return;
  }
  const int outer_dims = from.rank() > 0 ? from.rank() - 1 : 0;
  std::array<std::int64_t, Shape::kMaxRank> at{};
  for (;;) {
    std::int64_t from_offset = 0;
    std::int64_t to_offset = 0;
    for (int dim = 0; dim < outer_dims; ++dim) {
      from_offset += at[static_cast<std::size_t>(dim)] * from.stride(dim);
      to_offset += at[static_cast<std::size_t>(dim)] * to.stride(dim);
    }
    body(from_offset, to_offset);
    int dim = outer_dims - 1;
    while (dim >= 0 && ++at[static_cast<std::size_t>(dim)] == from.dim(dim)) {
      at[static_cast<std::size_t>(dim)] = 0;
      --dim;
    }
    if (dim < 0) {
      return;
    }
  }
}

/// Equal shapes, any strides.
template <class To, class From>
void copy_elements(const CopyArgs& args) {
  const int last = args.from.rank() - 1;
  const std::int64_t width = last >= 0 ? args.from.dim(last) : 1;
  const std::int64_t from_step = last >= 0 ? args.from.stride(last) : 1;
  const std::int64_t to_step = last >= 0 ? args.to.stride(last) : 1;
  const From* from = args.from.data<From>();
  To* to = args.to.data<To>();
  for_each_row(args.from, args.to, [&](std::int64_t from_offset, std::int64_t to_offset) {
    for (std::int64_t i = 0; i < width; ++i) {
      to[to_offset + i * to_step] = convert<To>(from[from_offset + i * from_step]);
    }
  });
}

/// Calls body.template operator()<To, From>() for the dtypes of a copy: float32, float64, bfloat16 and
/// float16 in any combination, other types among themselves. float64 to 16 bits rounds through float32.
template <class Body>
void with_copy_types(const CopyArgs& args, Body&& body) {
  const auto floating = [&]<class To>() {
    switch (args.from.dtype()) {
      case DType::kFloat32:
        return body.template operator()<To, float>();
      case DType::kFloat64:
        return body.template operator()<To, double>();
      case DType::kBFloat16:
        return body.template operator()<To, BFloat16>();
      case DType::kFloat16:
        return body.template operator()<To, Float16>();
      default:
        fail<InternalError>("no copy from {} to {}", args.from.str(), args.to.str());
    }
  };
  const DType to = args.to.dtype();
  if (to == DType::kFloat32) {
    return floating.template operator()<float>();
  }
  if (to == DType::kFloat64) {
    return floating.template operator()<double>();
  }
  if (to == DType::kBFloat16) {
    return floating.template operator()<BFloat16>();
  }
  if (to == DType::kFloat16) {
    return floating.template operator()<Float16>();
  }
  CARAVAN_CHECK(args.from.dtype() == to, "no copy from {} to {}", args.from.str(), args.to.str());
  if (to == DType::kComplex128) {
    return body.template operator()<std::complex<double>, std::complex<double>>();
  }
  if (to == DType::kInt32) {
    return body.template operator()<std::int32_t, std::int32_t>();
  }
  fail<InternalError>("no copy of {}", args.from.str());
}

inline void copy(const CopyArgs& args) {
  with_copy_types(args, [&]<class To, class From>() { copy_elements<To, From>(args); });
}

}  // namespace caravan::reference
