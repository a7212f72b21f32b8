// RANKS 2 4 8
// What a pipeline's stages send on and what comes back: the messages keep their content while they are on the
// way, and the two directions are adjoint. A rank alone has no neighbour and may not write to itself.
#include "caravan/parallel/message_ring.h"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>

#include "caravan/comm/mpi_communicator.h"
#include "kernels/reference/reference_backend.h"
#include "tests/support/adjoint.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr int kActivationTag = 0;
constexpr int kGradientTag = 1;
constexpr std::int64_t kWidth = 10;
constexpr std::uint64_t kMessages = 7;  // more than the ring has buffers

/// Micro-batches are of different lengths.
std::int64_t tokens_of(std::uint64_t message) {
  return 16 - static_cast<std::int64_t>(message);
}

/// Sends `values` as messages to the rank `distance` further on, around the end; what arrives from the other
/// side, by message.
std::vector<std::vector<double>> pass_on(Communicator& ranks, int distance, int tag,
                                         const std::vector<std::vector<double>>& values) {
  ReferenceBackend backend;
  MessageRing ring(backend, DType::kFloat64, tokens_of(0) * kWidth, ranks, tag);
  const int size = ranks.size();
  const int to = (ranks.rank() + distance + size) % size;
  const int from = (ranks.rank() - distance + size) % size;
  std::vector<std::vector<double>> arrived;
  std::vector<Pending> arriving;
  for (const std::vector<double>& message : values) {
    arrived.emplace_back(message.size());
  }
  for (std::uint64_t i = 0; i < values.size(); ++i) {
    const Shape shape = {tokens_of(i), kWidth};
    arriving.push_back(ranks.start_receive(TensorView(arrived[i].data(), DType::kFloat64, shape), from, tag));
    std::copy(values[i].begin(), values[i].end(), ring.take(shape).data<double>());
    ring.send(to);
  }
  for (Pending& pending : arriving) {
    pending.wait();
  }
  ring.finish();
  return arrived;
}

std::vector<std::vector<double>> messages(const Communicator& ranks, std::uint64_t stream) {
  std::vector<std::vector<double>> values;
  for (std::uint64_t i = 0; i < kMessages; ++i) {
    values.push_back(random_numbers(ranks, Spread::kEachRankItsOwn, stream * 10 + i, tokens_of(i) * kWidth));
  }
  return values;
}

Product inner_products(Communicator& ranks, const std::vector<std::vector<double>>& a,
                       const std::vector<std::vector<double>>& b) {
  Product sum;
  for (std::uint64_t i = 0; i < kMessages; ++i) {
    const Product one = inner_product(ranks, Spread::kEachRankItsOwn, a[i], b[i]);
    sum.value += one.value;
    sum.magnitude += one.magnitude;
  }
  return sum;
}

}  // namespace

TEST_CASE("activations to the next stage and gradients to the one before are adjoint",
          "[parallel][adjoint]") {
  const auto ranks = MpiCommunicator::over_world();
  ranks->prepare_messages(std::array{kActivationTag, kGradientTag});
  const auto x = messages(*ranks, 1);
  const auto y = messages(*ranks, 2);
  const Product left = inner_products(*ranks, pass_on(*ranks, 1, kActivationTag, x), y);
  const Product right = inner_products(*ranks, x, pass_on(*ranks, -1, kGradientTag, y));
  CHECK(adjoint_error(left, right) <= 1e-14);
  CHECK(left.magnitude > 1.0);
}

TEST_CASE("every message arrives as it was sent, in order", "[parallel][pipeline]") {
  const auto ranks = MpiCommunicator::over_world();
  const int before = (ranks->rank() + ranks->size() - 1) % ranks->size();
  const auto arrived = pass_on(*ranks, 1, kActivationTag, messages(*ranks, 1));
  for (std::uint64_t i = 0; i < kMessages; ++i) {
    const CounterRng rng(5, (10 + i) * 100 + static_cast<std::uint64_t>(before));
    for (std::size_t j = 0; j < arrived[i].size(); ++j) {
      REQUIRE(arrived[i][j] == rng.normal(j));
    }
  }
}
