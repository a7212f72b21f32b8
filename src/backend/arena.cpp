#include "caravan/backend/arena.h"

#include <algorithm>

#include "caravan/core/error.h"

namespace caravan {

TensorView Arena::allocate(const char* what, DType dtype, const Shape& shape) {
  constexpr std::int64_t kAlignment = 64;
  const TensorView probe(nullptr, dtype, shape, buffer_.device());
  const std::int64_t end = used_ + (probe.bytes() + kAlignment - 1) / kAlignment * kAlignment;
  CARAVAN_CHECK(end <= capacity(), "arena '{}' is full: {} ({}) needs {} bytes, {} of {} are used", name_,
                what, probe.str(), probe.bytes(), used_, capacity());
  TensorView view = buffer_.view(used_, dtype, shape);
  used_ = end;
  high_water_ = std::max(high_water_, used_);
  return view;
}

void Arena::release(Mark mark) {
  CARAVAN_CHECK(mark >= 0 && mark <= used_, "arena '{}': release to {} with {} used", name_, mark, used_);
  used_ = mark;
}

}  // namespace caravan
