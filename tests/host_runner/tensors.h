// Data of a kernel test: what the kernel gets, in its storage type, and the same values in double for the
// reference.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "caravan/core/counter_rng.h"
#include "caravan/core/tensor_view.h"
#include "kernels/cuda/launchers.h"

namespace caravan::test {

// Largest |actual − expected| over largest |expected|, where inputs are the same numbers in both. float32:
// sums of up to 1000 terms and exp, each rounded to 6e-8 relative, where a score's rounding grows by its size
// (up to 10). bfloat16: the result is rounded once, to 2^-8 = 3.9e-3 relative; sums behind it are float32.
inline constexpr double kFloat32Tolerance = 2e-6;
inline constexpr double kBFloat16Tolerance = 4e-3;
// float16: the result is rounded once, to 2^-11 = 4.9e-4 relative.
inline constexpr double kFloat16Tolerance = 5e-4;
inline double tolerance(DType dtype) {
  switch (dtype) {
    case DType::kBFloat16:
      return kBFloat16Tolerance;
    case DType::kFloat16:
      return kFloat16Tolerance;
    default:
      return kFloat32Tolerance;
  }
}

/// As `dtype` stores it.
inline double rounded(DType dtype, float value) {
  switch (dtype) {
    case DType::kBFloat16:
      return static_cast<double>(to_float(to_bfloat16(value)));
    case DType::kFloat16:
      return static_cast<double>(to_float(to_float16(value)));
    default:
      return static_cast<double>(value);
  }
}

/// A contiguous tensor of float32, bfloat16 or float16, or int32, that begins `offset` elements behind a
/// multiple of 16 bytes; with canaries around it that error() looks at.
class TestTensor {
 public:
  TestTensor(DType dtype, const Shape& shape, std::int64_t offset = 0)
      : dtype_(dtype),
        shape_(shape),
        begin_(static_cast<std::size_t>(offset) * dtype_bytes(dtype)),
        bytes_(static_cast<std::size_t>(shape.numel()) * dtype_bytes(dtype)),
        storage_((begin_ + bytes_) / 16 + 2),
        exact_(static_cast<std::size_t>(shape.numel())) {
    std::memset(storage_.data(), kCanary, storage_.size() * 16);
    fill(std::vector<double>(exact_.size(), 0.0));
  }

  /// Values rounded to the storage type, in both forms.
  void fill(const std::vector<double>& values) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      set(i, values[i]);
      exact_[i] = get(i);
    }
  }
  /// Uniform in [low, high).
  TestTensor& random(std::uint64_t stream, double low = -1.0, double high = 1.0) {
    const CounterRng rng(20240817, stream);
    std::vector<double> values(exact_.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = low + (high - low) * rng.uniform(i);
    }
    fill(values);
    return *this;
  }
  TestTensor& ints(const std::vector<std::int32_t>& values) {
    if (bytes_ > 0) {  // an empty vector has no address
      std::memcpy(data(), values.data(), bytes_);
    }
    return *this;
  }

  TensorView view() { return {data(), dtype_, shape_}; }
  /// The double form; integers are the same in both.
  TensorView reference() {
    return dtype_ == DType::kInt32 ? view() : TensorView(exact_.data(), DType::kFloat64, shape_);
  }

  double get(std::size_t i) const {
    if (dtype_ == DType::kBFloat16) {
      BFloat16 value;
      std::memcpy(&value, data() + 2 * i, 2);
      return static_cast<double>(caravan::to_float(value));
    }
    if (dtype_ == DType::kFloat16) {
      Float16 value;
      std::memcpy(&value, data() + 2 * i, 2);
      return static_cast<double>(caravan::to_float(value));
    }
    float value = 0.0F;
    std::memcpy(&value, data() + 4 * i, 4);
    return static_cast<double>(value);
  }
  std::vector<double> values() const {
    std::vector<double> all(exact_.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
      all[i] = get(i);
    }
    return all;
  }
  /// Of the whole tensor against the double form. Infinite where infinities or NaN are not in the same
  /// places, and where something was written outside.
  double error() const {
    double worst = 0.0;
    double scale = 0.0;
    for (std::size_t i = 0; i < exact_.size(); ++i) {
      const double actual = get(i);
      if (std::isfinite(actual) && std::isfinite(exact_[i])) {
        worst = std::max(worst, std::abs(actual - exact_[i]));
        scale = std::max(scale, std::abs(exact_[i]));
      } else if (actual != exact_[i]) {
        return std::numeric_limits<double>::infinity();
      }
    }
    const auto* bytes = reinterpret_cast<const unsigned char*>(storage_.data());
    for (std::size_t i = 0; i < storage_.size() * 16; ++i) {
      if ((i < begin_ || i >= begin_ + bytes_) && bytes[i] != kCanary) {
        return std::numeric_limits<double>::infinity();
      }
    }
    return scale > 0.0 ? worst / scale : worst;
  }
  /// Of the storage, for comparisons of runs.
  std::vector<unsigned char> bits() const { return {data(), data() + bytes_}; }

 private:
  static constexpr unsigned char kCanary = 0x5a;
  struct alignas(16) Line {
    unsigned char bytes[16];
  };

  unsigned char* data() { return reinterpret_cast<unsigned char*>(storage_.data()) + begin_; }
  const unsigned char* data() const {
    return reinterpret_cast<const unsigned char*>(storage_.data()) + begin_;
  }
  void set(std::size_t i, double value) {
    if (dtype_ == DType::kBFloat16) {
      const BFloat16 rounded = to_bfloat16(static_cast<float>(value));
      std::memcpy(data() + 2 * i, &rounded, 2);
    } else if (dtype_ == DType::kFloat16) {
      const Float16 rounded = to_float16(static_cast<float>(value));
      std::memcpy(data() + 2 * i, &rounded, 2);
    } else if (dtype_ == DType::kFloat32) {
      const auto rounded = static_cast<float>(value);
      std::memcpy(data() + 4 * i, &rounded, 4);
    }
  }

  DType dtype_;
  Shape shape_;
  std::size_t begin_;
  std::size_t bytes_;
  std::vector<Line> storage_;
  std::vector<double> exact_;
};

inline TensorView kernel_form(TestTensor& tensor) {
  return tensor.view();
}
inline TensorView reference_form(TestTensor& tensor) {
  return tensor.reference();
}
/// What activations and weights may be stored as.
inline constexpr DType kStorageTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};
/// {T, storage type of the gradients of weights stored as T}.
inline constexpr std::pair<DType, DType> kGradientTypes[] = {{DType::kFloat32, DType::kFloat32},
                                                             {DType::kBFloat16, DType::kFloat32},
                                                             {DType::kBFloat16, DType::kBFloat16},
                                                             {DType::kFloat16, DType::kFloat32},
                                                             {DType::kFloat16, DType::kFloat16}};

/// Scratch memory of exactly `bytes`, full of NaN.
class TestWorkspace {
 public:
  explicit TestWorkspace(std::int64_t bytes)
      : storage_(static_cast<std::size_t>(bytes + 15) / 16), bytes_(bytes) {
    if (!storage_.empty()) {
      std::memset(storage_.data(), 0xff, storage_.size() * sizeof(Line));
    }
  }
  cuda::Workspace get() { return {storage_.data(), bytes_}; }

 private:
  struct alignas(16) Line {
    unsigned char bytes[16];
  };
  std::vector<Line> storage_;
  std::int64_t bytes_;
};

}  // namespace caravan::test
