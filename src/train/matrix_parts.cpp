#include "caravan/train/matrix_parts.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <span>

#include "caravan/backend/buffer.h"
#include "caravan/core/error.h"

namespace caravan {
namespace {

constexpr int kTag = 5;

TensorView numbers(std::vector<std::int64_t>& values) {
  return {values.data(), DType::kInt64, {static_cast<std::int64_t>(values.size())}};
}

std::int64_t columns_of(const TensorView& matrix) {
  return matrix.rank() == 1 ? 1 : matrix.dim(1);
}

void send_part(Communicator& world, int root, const MatrixPart& part) {
  std::vector<std::int64_t> header = {static_cast<std::int64_t>(part.rows.size()), columns_of(part.values),
                                      part.first_column};
  world.send(numbers(header), root, kTag);
  if (part.values.numel() > 0) {
    std::vector<std::int64_t> rows = part.rows;
    world.send(numbers(rows), root, kTag);
    world.send(part.values, root, kTag);
  }
}

/// `memory` is what the part's values lie in.
MatrixPart receive_part(Communicator& world, int from, DType dtype, Buffer& memory) {
  std::vector<std::int64_t> header(3);
  world.receive(numbers(header), from, kTag);
  MatrixPart part;
  part.rows.resize(static_cast<std::size_t>(header[0]));
  part.first_column = header[2];
  const std::int64_t bytes = header[0] * header[1] * static_cast<std::int64_t>(dtype_bytes(dtype));
  if (memory.bytes() < bytes) {
    memory = Buffer();
    memory = allocate_host(bytes);
  }
  part.values = memory.view(0, dtype, {header[0], header[1]});
  if (bytes > 0) {
    world.receive(numbers(part.rows), from, kTag);
    world.receive(part.values, from, kTag);
  }
  return part;
}

template <class T>
double sum_squares(const TensorView& values) {
  const T* begin = values.data<T>();
  return std::accumulate(begin, begin + values.numel(), 0.0,
                         [](double sum, T value) { return sum + to_double(value) * to_double(value); });
}

std::uint32_t bits_of(BFloat16 value) {
  return value.bits;
}
std::uint32_t bits_of(float value) {
  return std::bit_cast<std::uint32_t>(value);
}
std::uint64_t bits_of(double value) {
  return std::bit_cast<std::uint64_t>(value);
}

struct Squares {
  double difference = 0.0;
  double expected = 0.0;
};

/// Adds what differs in one row, of which `expected` are the whole's elements from `part`'s first column on.
template <class T>
void compare_row(std::span<const T> values, std::span<const T> expected, std::int64_t row,
                 std::int64_t first_column, PartDifference& result, Squares& squares) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double is = to_double(values[i]);
    const double should_be = to_double(expected[i]);
    squares.expected += should_be * should_be;
    if (bits_of(values[i]) == bits_of(expected[i])) {
      continue;
    }
    if (result.unequal++ == 0) {
      result.row = row;
      result.column = first_column + static_cast<std::int64_t>(i);
      result.value = is;
      result.expected = should_be;
    }
    result.sum_absolute += std::abs(is - should_be);
    squares.difference += (is - should_be) * (is - should_be);
  }
}

template <class T>
PartDifference compare(const MatrixPart& part, const TensorView& whole, double whole_rms) {
  const std::int64_t columns = columns_of(part.values);
  const std::int64_t whole_columns = columns_of(whole);
  const auto width = static_cast<std::size_t>(columns);
  PartDifference result;
  Squares squares;
  for (std::size_t i = 0; i < part.rows.size(); ++i) {
    const std::int64_t row = part.rows[i];
    if (row == MatrixPart::kNoRow) {
      continue;
    }
    CARAVAN_CHECK(row >= 0 && row < whole.dim(0) && part.first_column + columns <= whole_columns,
                  "row {}, columns {} + {} of {}", row, part.first_column, columns, whole.str());
    compare_row<T>({part.values.data<T>() + static_cast<std::int64_t>(i) * columns, width},
                   {whole.data<T>() + row * whole_columns + part.first_column, width}, row, part.first_column,
                   result, squares);
    result.compared += columns;
  }
  if (squares.difference != 0.0) {
    const auto count = static_cast<double>(result.compared);
    result.relative =
        std::sqrt(squares.difference / count) / std::max(whole_rms, std::sqrt(squares.expected / count));
  }
  return result;
}

/// Calls body with an element of the type that is compared.
template <class Body>
void with_compared(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kFloat64:
      return body(double{});
    case DType::kFloat32:
      return body(float{});
    case DType::kBFloat16:
      return body(BFloat16{});
    default:
      fail<InternalError>("nothing compares {}", dtype_name(dtype));
  }
}

}  // namespace

MatrixPart part_of_tensor(const Region& region, const TensorView& values) {
  MatrixPart part;
  part.rows.resize(static_cast<std::size_t>(region[0].size()));
  std::iota(part.rows.begin(), part.rows.end(), region[0].begin);
  part.first_column = region.size() == 1 ? 0 : region[1].begin;
  part.values = values.rank() == 1 ? values.reshape({values.numel(), 1}) : values;
  return part;
}

void visit_parts(Communicator& world, int root, const MatrixPart& mine,
                 const std::function<void(int rank, const MatrixPart& part)>& visit) {
  if (world.rank() != root) {
    send_part(world, root, mine);
    return;
  }
  Buffer memory;
  for (int rank = 0; rank < world.size(); ++rank) {
    if (rank == root) {
      visit(rank, mine);
    } else {
      visit(rank, receive_part(world, rank, mine.values.dtype(), memory));
    }
  }
}

PartDifference compare_part(const MatrixPart& part, const TensorView& whole, double whole_rms) {
  PartDifference result;
  with_compared(whole.dtype(),
                [&](auto element) { result = compare<decltype(element)>(part, whole, whole_rms); });
  return result;
}

double root_mean_square(const TensorView& values) {
  if (values.numel() == 0) {
    return 0.0;
  }
  double squares = 0.0;
  with_compared(values.dtype(), [&](auto element) { squares = sum_squares<decltype(element)>(values); });
  return std::sqrt(squares / static_cast<double>(values.numel()));
}

}  // namespace caravan
