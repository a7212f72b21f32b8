#include "caravan/core/shape.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <span>

#include "caravan/core/error.h"

namespace caravan {

Shape::Shape(std::initializer_list<std::int64_t> dims) {
  for (const std::int64_t size : dims) {
    append(size);
  }
}

std::int64_t Shape::operator[](int dim) const {
  CARAVAN_CHECK(dim >= 0 && dim < rank_, "dim {} of a shape of rank {}", dim, rank_);
  return dims_[static_cast<std::size_t>(dim)];
}

void Shape::set(int dim, std::int64_t size) {
  CARAVAN_CHECK(dim >= 0 && dim < rank_ && size >= 0, "set dim {} of {} to {}", dim, str(), size);
  dims_[static_cast<std::size_t>(dim)] = size;
}

void Shape::append(std::int64_t size) {
  CARAVAN_CHECK(rank_ < kMaxRank && size >= 0, "append {} to {}", size, str());
  dims_[static_cast<std::size_t>(rank_++)] = size;
}

std::int64_t Shape::numel() const {
  std::int64_t product = 1;
  for (int dim = 0; dim < rank_; ++dim) {
    CARAVAN_CHECK(!__builtin_mul_overflow(product, (*this)[dim], &product), "elements of {} overflow int64",
                  str());
  }
  return product;
}

std::string Shape::str() const {
  return fmt::format("[{}]", fmt::join(std::span(dims_).first(static_cast<std::size_t>(rank_)), ", "));
}

}  // namespace caravan
