// <F x, y> = <x, F* y>: what every pair of port functions must satisfy. It needs no other implementation and
// sees a wrong collective, a wrong factor and a wrong order of tokens. A replicated tensor counts once, a
// divided one all its parts, and so does one of which every rank has its own (a partial sum).
#pragma once

#include <cmath>
#include <vector>

#include "caravan/comm/communicator.h"
#include "caravan/core/counter_rng.h"

namespace caravan::test {

enum class Spread { kReplicated, kEachRankItsOwn };

/// Normal random numbers; the same on all ranks when replicated.
inline std::vector<double> random_numbers(const Communicator& group, Spread spread, std::uint64_t stream,
                                          std::int64_t count) {
  const auto rank = static_cast<std::uint64_t>(spread == Spread::kReplicated ? 99 : group.rank());
  const CounterRng rng(5, stream * 100 + rank);
  std::vector<double> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = rng.normal(i);
  }
  return values;
}

/// A value and the magnitude that its rounding errors are measured by.
struct Product {
  double value = 0.0;
  double magnitude = 0.0;
};

/// Adds what a rank has of it; `a` is as long as `b`.
inline void add_products(Product& product, const double* a, const std::vector<double>& b) {
  for (std::size_t i = 0; i < b.size(); ++i) {
    product.value += a[i] * b[i];
    product.magnitude += std::abs(a[i] * b[i]);
  }
}

/// On every rank the same. Collective.
inline Product inner_product(Communicator& group, Spread spread, const std::vector<double>& a,
                             const std::vector<double>& b) {
  Product product;
  add_products(product, a.data(), b);
  if (spread == Spread::kEachRankItsOwn) {
    product.value = group.all_reduce_value(product.value);
    product.magnitude = group.all_reduce_value(product.magnitude);
  }
  return product;
}

/// |left − right| in units of what enters them.
inline double adjoint_error(const Product& left, const Product& right) {
  return std::abs(left.value - right.value) / std::max(left.magnitude, right.magnitude);
}

}  // namespace caravan::test
