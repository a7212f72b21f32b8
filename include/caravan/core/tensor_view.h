// A non-owning view of a tensor: pointer, dtype, shape, strides, device. Copying is free; nothing allocates.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "caravan/core/device.h"
#include "caravan/core/dtype.h"
#include "caravan/core/shape.h"

namespace caravan {

/// The memory behind a view belongs to somebody else (a Buffer, an Arena, a test's vector) and must outlive
/// it. A default-constructed view is undefined: `defined()` is false and everything else throws. Constness is
/// not tracked: whoever holds a view may write through it; op contracts say who does.
class TensorView {
 public:
  TensorView() = default;
  /// Contiguous row-major view.
  TensorView(void* data, DType dtype, const Shape& shape, Device device = {});

  bool defined() const { return defined_; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  Device device() const { return device_; }
  int rank() const { return shape_.rank(); }
  std::int64_t dim(int index) const { return shape_[index]; }
  /// Elements to step for one index of `dim`.
  std::int64_t stride(int dim) const;
  std::int64_t numel() const { return shape_.numel(); }
  /// numel · element size, whatever the strides.
  std::int64_t bytes() const;
  bool is_contiguous() const;

  /// Untyped pointer to element (0, ...); null on DeviceKind::kNone.
  void* raw() const { return data_; }
  /// Typed pointer; throws when T is not the view's dtype.
  template <class T>
  T* data() const {
    check_dtype(DTypeOf<T>::kValue);
    return static_cast<T*>(data_);
  }

  /// Indices [begin, end) of `dim`; a strided view unless dim is 0.
  TensorView slice(int dim, std::int64_t begin, std::int64_t end) const;
  /// Rows [begin, end): slice of dim 0.
  TensorView rows(std::int64_t begin, std::int64_t end) const { return slice(0, begin, end); }
  /// Same elements, other shape; contiguous views only.
  TensorView reshape(const Shape& shape) const;
  /// "float32[4, 64]"
  std::string str() const;

 private:
  void check_dtype(DType wanted) const;

  void* data_ = nullptr;
  Shape shape_;
  std::array<std::int64_t, Shape::kMaxRank> strides_{};
  DType dtype_ = DType::kFloat32;
  Device device_;
  bool defined_ = false;
};

}  // namespace caravan
