// Two linear layers divided among ranks: the first by columns of its output, the second by rows of its input.
// Explained line by line in docs/tensor_parallel_linear.md.
//   mpirun -n 4 build/release/bin/example_tensor_parallel_linear
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "caravan/comm/mpi_session.h"

namespace {

using caravan::Communicator;
using caravan::DType;
using caravan::TensorView;

constexpr std::int64_t kTokens = 6;  // T
constexpr std::int64_t kHidden = 8;  // D
constexpr std::int64_t kWide = 12;   // F, divided among 1, 2, 3, 4, ... ranks

/// Row-major.
struct Matrix {
  Matrix(std::int64_t row_count, std::int64_t column_count)
      : rows(row_count), columns(column_count), values(static_cast<std::size_t>(row_count * column_count)) {}
  double& at(std::int64_t row, std::int64_t column) {
    return values[static_cast<std::size_t>(row * columns + column)];
  }
  double at(std::int64_t row, std::int64_t column) const {
    return values[static_cast<std::size_t>(row * columns + column)];
  }
  std::int64_t rows, columns;
  std::vector<double> values;
};

/// The same numbers on every rank, without a message: a function of name, row and column.
Matrix made_up(std::int64_t rows, std::int64_t columns, double name) {
  Matrix m(rows, columns);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) {
      m.at(r, c) = std::sin(name + 3.0 * static_cast<double>(r) + 0.7 * static_cast<double>(c));
    }
  }
  return m;
}

Matrix transposed(const Matrix& m) {
  Matrix t(m.columns, m.rows);
  for (std::int64_t r = 0; r < m.rows; ++r) {
    for (std::int64_t c = 0; c < m.columns; ++c) {
      t.at(c, r) = m.at(r, c);
    }
  }
  return t;
}

Matrix product(const Matrix& a, const Matrix& b) {
  Matrix c(a.rows, b.columns);
  for (std::int64_t i = 0; i < a.rows; ++i) {
    for (std::int64_t k = 0; k < a.columns; ++k) {
      for (std::int64_t j = 0; j < b.columns; ++j) {
        c.at(i, j) += a.at(i, k) * b.at(k, j);
      }
    }
  }
  return c;
}

Matrix rows_of(const Matrix& m, std::int64_t begin, std::int64_t end) {
  Matrix part(end - begin, m.columns);
  std::copy(m.values.begin() + begin * m.columns, m.values.begin() + end * m.columns, part.values.begin());
  return part;
}

Matrix columns_of(const Matrix& m, std::int64_t begin, std::int64_t end) {
  return transposed(rows_of(transposed(m), begin, end));
}

void sum_over_ranks(Communicator& ranks, Matrix& m) {
  ranks.all_reduce(TensorView(m.values.data(), DType::kFloat64, {m.rows, m.columns}));
}

/// Input, weights, and everything that forward and backward make of them.
struct Layers {
  Matrix x, w1, w2;         // [T, D], [F, D], [D, F]
  Matrix h{0, 0}, y{0, 0};  // [T, F], [T, D]
  Matrix dx{0, 0}, dw1{0, 0}, dw2{0, 0};
};

/// y = relu(x W1ᵀ) W2ᵀ and its gradients for dy = y. With the whole weights on one rank, or with rows of W1
/// and the same columns of W2 on each of several.
void forward_and_backward(Communicator& ranks, Layers& layers) {
  // Column-parallel: every rank has all of x and computes some columns of h. Nothing is sent.
  layers.h = product(layers.x, transposed(layers.w1));
  std::for_each(layers.h.values.begin(), layers.h.values.end(),
                [](double& value) { value = std::max(value, 0.0); });
  // Row-parallel: every rank has some columns of h, so its product is one of the sums that make y.
  layers.y = product(layers.h, transposed(layers.w2));
  sum_over_ranks(ranks, layers.y);  // message 1

  const Matrix& dy = layers.y;  // of the loss ½ Σ y²
  layers.dw2 = product(transposed(dy), layers.h);
  Matrix dh = product(dy, layers.w2);
  for (std::size_t i = 0; i < dh.values.size(); ++i) {
    dh.values[i] = layers.h.values[i] > 0.0 ? dh.values[i] : 0.0;
  }
  layers.dw1 = product(transposed(dh), layers.x);
  // Every rank used all of x, so each has one of the sums that make its gradient.
  layers.dx = product(dh, layers.w1);
  sum_over_ranks(ranks, layers.dx);  // message 2
}

double largest_difference(const Matrix& a, const Matrix& b) {
  double largest = a.rows == b.rows && a.columns == b.columns ? 0.0 : HUGE_VAL;
  for (std::size_t i = 0; i < std::min(a.values.size(), b.values.size()); ++i) {
    largest = std::max(largest, std::abs(a.values[i] - b.values[i]));
  }
  return largest;
}

}  // namespace

int main(int argc, char** argv) {
  caravan::MpiSession mpi(argc, argv);
  Communicator& world = mpi.world();
  if (kWide % world.size() != 0) {
    fmt::print(stderr, "{} ranks do not divide {} columns; start 1, 2, 3, 4, 6 or 12\n", world.size(), kWide);
    return 2;
  }
  Layers whole{made_up(kTokens, kHidden, 1), made_up(kWide, kHidden, 2), made_up(kHidden, kWide, 3)};
  const std::int64_t share = kWide / world.size();
  const std::int64_t begin = world.rank() * share;
  Layers mine{whole.x, rows_of(whole.w1, begin, begin + share), columns_of(whole.w2, begin, begin + share)};
  forward_and_backward(world, mine);
  const caravan::TrafficCounter sent = world.traffic()[caravan::Collective::kAllReduce];

  const auto alone = world.split(world.rank(), 0);  // a group of this rank only
  forward_and_backward(*alone, whole);
  double difference = 0.0;
  for (const auto& [part, expected] : {std::pair{mine.y, whole.y},
                                       {mine.dx, whole.dx},
                                       {mine.h, columns_of(whole.h, begin, begin + share)},
                                       {mine.dw1, rows_of(whole.dw1, begin, begin + share)},
                                       {mine.dw2, columns_of(whole.dw2, begin, begin + share)}}) {
    difference = std::max(difference, largest_difference(part, expected));
  }
  difference = world.all_reduce_value(difference, caravan::ReduceOp::kMax);
  if (world.rank() == 0) {
    fmt::print("{} ranks: {} of {} weights on each, {} bytes sent by each in {} sums\n", world.size(),
               mine.w1.values.size() + mine.w2.values.size(), whole.w1.values.size() + whole.w2.values.size(),
               sent.sent_bytes, sent.calls);
    fmt::print("largest difference from one rank, outputs and gradients: {:.1e}\n", difference);
  }
  return difference <= 1e-12 ? 0 : 1;
}
