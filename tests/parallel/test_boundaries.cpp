// RANKS 1 2 4 8
// The boundaries of tensor and sequence parallelism: what they move, and that each pair is adjoint, over
// every kind of group.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <memory>

#include "caravan/backend/context.h"
#include "caravan/comm/counting_communicator.h"
#include "caravan/comm/mpi_communicator.h"
#include "caravan/core/error.h"
#include "caravan/model/local_ports.h"
#include "caravan/parallel/sequence_boundary.h"
#include "caravan/parallel/tensor_boundary.h"
#include "kernels/reference/reference_backend.h"
#include "tests/support/adjoint.h"
#include "tests/support/group_kinds.h"
#include "tests/support/origin_data.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr double kTolerance = 1e-14;  // of the sum of the magnitudes that enter
constexpr std::int64_t kTokens = 16;
constexpr std::int64_t kWidth = 10;

/// Scratch memory on the device, or on the host without one.
struct Workspace {
  explicit Workspace(ThreadedDevice* used = nullptr)
      : device(used),
        scratch("scratch", used != nullptr ? used->allocate(1 << 20) : allocate_host(1 << 20)) {}
  ~Workspace() {
    if (device != nullptr) {
      device->synchronize();
    }
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  Workspace(Workspace&&) = delete;
  Workspace& operator=(Workspace&&) = delete;

  ThreadedDevice* device;
  ReferenceBackend backend;
  Stream stream;
  StepScalars scalars;
  Arena scratch;
  Context ctx{backend, stream, scratch, scalars, DType::kFloat64};

  void move(void* to, const void* from, std::size_t count) const {
    const std::size_t bytes = count * sizeof(double);
    if (device != nullptr) {
      device->copy(to, from, static_cast<std::int64_t>(bytes), device->stream(StreamId::kCompute));
      device->synchronize();
    } else if (bytes > 0) {
      std::memcpy(to, from, bytes);
    }
  }
  TensorView tensor(std::int64_t tokens, const std::vector<double>& values) {
    const TensorView view = ctx.allocate("test", {tokens, kWidth});
    move(view.raw(), values.data(), values.size());
    return view;
  }
  std::vector<double> values_of(const TensorView& view) const {
    std::vector<double> values(static_cast<std::size_t>(view.numel()));
    move(values.data(), view.raw(), values.size());
    return values;
  }
  Allocate allocate() {
    return [this](const Shape& shape) { return ctx.allocate("full", shape); };
  }
};

/// enter and leave_backward move alike: stream to full.
enum class Way { kEnter, kLeave };

std::vector<double> to_full(const Boundary& boundary, Way way, const std::vector<double>& x,
                            ThreadedDevice* device = nullptr) {
  Workspace work(device);
  const TensorView stream = work.tensor(boundary.stream_tokens(kTokens), x);
  const TensorView full = way == Way::kEnter ? boundary.enter(work.ctx, stream, work.allocate())
                                             : boundary.leave_backward(work.ctx, stream, work.allocate());
  CHECK(work.values_of(stream) == x);
  return work.values_of(full);
}

/// leave and enter_backward: the partial sums of the full region to the stream.
std::vector<double> to_stream(const Boundary& boundary, Way way, const std::vector<double>& y,
                              ThreadedDevice* device = nullptr) {
  Workspace work(device);
  const std::int64_t tokens = boundary.stream_tokens(kTokens);
  const TensorView stream = work.tensor(tokens, {});
  const TensorView partial = boundary.partial_buffer(work.ctx, stream);
  REQUIRE(partial.shape() == Shape{kTokens, kWidth});
  work.move(partial.raw(), y.data(), y.size());
  Pending pending = way == Way::kEnter ? boundary.enter_backward(work.ctx, partial, stream)
                                       : boundary.leave(work.ctx, partial, stream);
  pending.wait();
  return work.values_of(stream);
}

void check_adjoint(Communicator& group, const Boundary& boundary, Spread stream_spread,
                   ThreadedDevice* device = nullptr) {
  const std::int64_t stream_numel = boundary.stream_tokens(kTokens) * kWidth;
  for (const Way way : {Way::kEnter, Way::kLeave}) {
    const auto x = random_numbers(group, stream_spread, 1, stream_numel);
    const auto y = random_numbers(group, Spread::kEachRankItsOwn, 2, kTokens * kWidth);
    const Product left = inner_product(group, Spread::kEachRankItsOwn, to_full(boundary, way, x, device), y);
    const Product right = inner_product(group, stream_spread, x, to_stream(boundary, way, y, device));
    CHECK(adjoint_error(left, right) <= kTolerance);
    CHECK(left.magnitude > 1.0);
  }
}

std::vector<double> origins(std::int64_t rank, std::int64_t rows) {
  return origin_matrix<double>(rank, rows, kWidth).values;
}

}  // namespace

TEST_CASE("the tensor boundary's pairs are adjoint", "[parallel][adjoint]") {
  for (const GroupKind kind : kGroupKinds) {
    INFO(name_of(kind));
    const TestGroup group(kind);
    check_adjoint(*group, TensorBoundary(*group), Spread::kReplicated, group.device());
  }
}

TEST_CASE("the sequence boundary's pairs are adjoint", "[parallel][adjoint]") {
  for (const GroupKind kind : kGroupKinds) {
    INFO(name_of(kind));
    const TestGroup group(kind);
    check_adjoint(*group, SequenceBoundary(*group), Spread::kEachRankItsOwn, group.device());
  }
}

TEST_CASE("the one-rank boundary's pairs are adjoint, each rank for itself", "[parallel][adjoint]") {
  const auto group = MpiCommunicator::over_world();
  check_adjoint(*group, LocalBoundary(), Spread::kEachRankItsOwn);
}

TEST_CASE("the one-rank boundary's factor is on both functions of the leaving pair", "[parallel][adjoint]") {
  const auto group = MpiCommunicator::over_world();
  check_adjoint(*group, LocalBoundary(3.0), Spread::kEachRankItsOwn);
}

TEST_CASE("the tensor boundary leaves the sum of all ranks on every rank", "[parallel][boundary]") {
  const auto group = MpiCommunicator::over_world();
  const TensorBoundary boundary(*group);
  std::vector<double> expected(kTokens * kWidth, 0.0);
  for (int r = 0; r < group->size(); ++r) {
    const auto one = origins(r, kTokens);
    std::transform(one.begin(), one.end(), expected.begin(), expected.begin(), std::plus<>());
  }
  for (const Way way : {Way::kEnter, Way::kLeave}) {
    CHECK(to_stream(boundary, way, origins(group->rank(), kTokens)) == expected);
    CHECK(to_full(boundary, way, expected) == expected);
  }
}

TEST_CASE("the sequence boundary gathers tokens in rank order and sums each rank's own",
          "[parallel][boundary]") {
  const auto group = MpiCommunicator::over_world();
  const SequenceBoundary boundary(*group);
  const std::int64_t own = boundary.stream_tokens(kTokens);
  REQUIRE(own == kTokens / group->size());
  std::vector<double> gathered;
  std::vector<double> sums(static_cast<std::size_t>(own * kWidth), 0.0);
  for (int r = 0; r < group->size(); ++r) {
    const auto part = origins(r, own);
    gathered.insert(gathered.end(), part.begin(), part.end());
    const auto all = origins(r, kTokens);
    std::transform(sums.begin(), sums.end(), all.begin() + group->rank() * own * kWidth, sums.begin(),
                   std::plus<>());
  }
  for (const Way way : {Way::kEnter, Way::kLeave}) {
    CHECK(to_full(boundary, way, origins(group->rank(), own)) == gathered);
    CHECK(to_stream(boundary, way, origins(group->rank(), kTokens)) == sums);
  }
}

TEST_CASE("boundaries of one rank move and copy nothing", "[parallel][boundary]") {
  const auto world = MpiCommunicator::over_world();
  const auto alone = world->split(world->rank(), 0);
  Workspace work;
  const TensorView stream = work.tensor(kTokens, origins(world->rank(), kTokens));
  for (const std::unique_ptr<Boundary>& boundary :
       {std::unique_ptr<Boundary>(std::make_unique<TensorBoundary>(*alone)),
        std::unique_ptr<Boundary>(std::make_unique<SequenceBoundary>(*alone))}) {
    CHECK(boundary->enter(work.ctx, stream, work.allocate()).raw() == stream.raw());
    CHECK(boundary->leave_backward(work.ctx, stream, work.allocate()).raw() == stream.raw());
    const TensorView partial = boundary->partial_buffer(work.ctx, stream);
    CHECK(partial.raw() == stream.raw());
    boundary->leave(work.ctx, partial, stream).wait();
    boundary->enter_backward(work.ctx, partial, stream).wait();
    CHECK(work.values_of(stream) == origins(world->rank(), kTokens));
  }
  CHECK(alone->traffic().total().sent_bytes == 0);
}

TEST_CASE("boundaries run on shapes and count what they would move", "[parallel][boundary][counting]") {
  Workspace work;
  Arena none("shapes", Buffer(nullptr, 1 << 20, {DeviceKind::kNone, 0}, [](void*) {}));
  Context ctx{work.backend, work.stream, none, work.scalars, DType::kFloat64};
  const Allocate allocate = [&](const Shape& shape) { return ctx.allocate("full", shape); };
  CountingCommunicator tp(1, 4);
  const SequenceBoundary boundary(tp);
  const TensorView stream = ctx.allocate("stream", {boundary.stream_tokens(kTokens), kWidth});
  CHECK(boundary.enter(ctx, stream, allocate).shape() == Shape{kTokens, kWidth});
  boundary.leave(ctx, boundary.partial_buffer(ctx, stream), stream).wait();
  CHECK(tp.traffic()[Collective::kAllGather].sent_bytes == 3 * stream.bytes());
  CHECK(tp.traffic()[Collective::kReduceScatter].sent_bytes == 3 * stream.bytes());
}

TEST_CASE("tokens that do not divide over the ranks are refused", "[parallel][boundary]") {
  const auto group = MpiCommunicator::over_world();
  if (group->size() > 1) {
    CHECK_THROWS_AS(SequenceBoundary(*group).stream_tokens(kTokens + 1), InternalError);
  }
  CHECK(TensorBoundary(*group).stream_tokens(kTokens + 1) == kTokens + 1);
}
