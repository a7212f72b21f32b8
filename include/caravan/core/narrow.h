// Checked narrowing at library borders (MPI and BLAS take int).
#pragma once

#include <cstdint>
#include <utility>

#include "caravan/core/error.h"

namespace caravan {

template <class To, class From>
To narrow(From value) {
  CARAVAN_CHECK(std::in_range<To>(value), "{} does not fit the target type", value);
  return static_cast<To>(value);
}

}  // namespace caravan
