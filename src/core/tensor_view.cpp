#include "caravan/core/tensor_view.h"

#include <fmt/format.h>

#include "caravan/core/error.h"

namespace caravan {

TensorView::TensorView(void* data, DType dtype, const Shape& shape, Device device)
    : data_(data), shape_(shape), dtype_(dtype), device_(device), defined_(true) {
  std::int64_t stride = 1;
  for (int dim = shape.rank() - 1; dim >= 0; --dim) {
    strides_[static_cast<std::size_t>(dim)] = stride;
    stride *= shape[dim];
  }
}

std::int64_t TensorView::stride(int dim) const {
  CARAVAN_CHECK(dim >= 0 && dim < rank(), "stride of dim {} of {}", dim, str());
  return strides_[static_cast<std::size_t>(dim)];
}

std::int64_t TensorView::bytes() const {
  return numel() * static_cast<std::int64_t>(dtype_bytes(dtype_));
}

bool TensorView::is_contiguous() const {
  std::int64_t expected = 1;
  for (int dim = rank() - 1; dim >= 0; --dim) {
    if (shape_[dim] != 1 && stride(dim) != expected) {
      return false;
    }
    expected *= shape_[dim];
  }
  return true;
}

TensorView TensorView::slice(int dim, std::int64_t begin, std::int64_t end) const {
  CARAVAN_CHECK(defined_ && dim < rank() && 0 <= begin && begin <= end && end <= shape_[dim],
                "slice [{}, {}) of dim {} of {}", begin, end, dim, str());
  TensorView result = *this;
  result.shape_.set(dim, end - begin);
  if (data_ != nullptr) {
    result.data_ =
        static_cast<char*>(data_) + begin * stride(dim) * static_cast<std::int64_t>(dtype_bytes(dtype_));
  }
  return result;
}

TensorView TensorView::reshape(const Shape& shape) const {
  CARAVAN_CHECK(defined_ && is_contiguous() && shape.numel() == numel(), "reshape {} to {}", str(),
                shape.str());
  return TensorView(data_, dtype_, shape, device_);
}

std::string TensorView::str() const {
  return defined_ ? fmt::format("{}{}", dtype_name(dtype_), shape_.str()) : "undefined tensor";
}

void TensorView::check_dtype(DType wanted) const {
  CARAVAN_CHECK(defined_ && wanted == dtype_, "{} read as {}", str(), dtype_name(wanted));
}

}  // namespace caravan
