// RANKS 2 4
// What StagedCommunicator adds to the contract that test_communicator.cpp, test_gather.cpp and
// test_started.cpp hold it to: overlap, memory that is kept, and no rank left waiting for what another one
// has started.
#include <catch2/catch.hpp>
#include <deque>
#include <memory>

#include "tests/support/forwarding_communicator.h"
#include "tests/support/group_kinds.h"

using namespace caravan;
using namespace caravan::test;

namespace {

/// Notes how many copies the device had been asked for at each exchange.
class NotingCopies final : public ForwardingCommunicator {
 public:
  NotingCopies(std::unique_ptr<Communicator> inner, const ThreadedDevice& device,
               std::vector<std::int64_t>& copies)
      : ForwardingCommunicator(std::move(inner)), device_(device), copies_(copies) {}

 protected:
  std::unique_ptr<Communicator> do_split(int color, int key) override { return inner().split(color, key); }
  void do_all_reduce(const TensorView& values, ReduceOp op) override {
    copies_.push_back(device_.copies());
    inner().all_reduce(values, op);
  }

 private:
  const ThreadedDevice& device_;
  std::vector<std::int64_t>& copies_;
};

}  // namespace

TEST_CASE("the copy of the next piece is under way while a piece is exchanged", "[comm][staged]") {
  ThreadedDevice device;
  std::vector<std::int64_t> copies;
  constexpr std::int64_t kPieceBytes = 4000;
  StagedCommunicator group(std::make_unique<NotingCopies>(MpiCommunicator::over_world(), device, copies),
                           device, DevicePath::kThroughHost, kPieceBytes);
  Placed<float> values(&device, OwnedMatrix<float>(500, 10, 1.0F));  // five pieces
  const std::int64_t before = device.copies();
  group.all_reduce(values.view());
  // To the host: this piece, the next one (while there is one); back: those before.
  REQUIRE(copies.size() == 5);
  for (std::size_t i = 0; i < copies.size(); ++i) {
    const auto there = static_cast<std::int64_t>(std::min<std::size_t>(i + 2, 5));
    CHECK(copies[i] - before == there + static_cast<std::int64_t>(i));
  }
  REQUIRE(values.fetched().values.back() == static_cast<float>(group.size()));
}

TEST_CASE("page-locked memory is kept: a second round takes none", "[comm][staged]") {
  const TestGroup group(GroupKind::kStaged);
  const int size = group->size();
  Placed<float> values(group, OwnedMatrix<float>(100 * size, 10, 1.0F));
  Placed<float> mine(group, OwnedMatrix<float>(100, 10, 1.0F));
  const auto round = [&] {
    group->all_reduce(values.view());
    group->broadcast(values.view(), 0);
    Pending a = group->start_all_gather(mine.view(), values.view());
    a.wait();
    Pending b = group->start_reduce_scatter(values.view(), mine.view());
    Pending c = group->start_all_reduce(mine.view(), ReduceOp::kMax);
    c.wait();
    b.wait();
  };
  group->reserve_reduce_scatter(mine.view().bytes());
  CHECK(group.device()->pinned_bytes() >= size * mine.view().bytes());
  round();
  round();
  const std::int64_t taken = group.device()->pinned_bytes();
  round();
  round();
  REQUIRE(group.device()->pinned_bytes() == taken);
}

TEST_CASE("what was started is on its way before this rank waits for anything else", "[comm][staged]") {
  // The receiver comes to the barrier only when it has the message, and the sender waits in the barrier of
  // another group: the message must have left although the sender never looked after it again.
  const TestGroup group(GroupKind::kStaged);
  const auto others = MpiCommunicator::over_world();
  Placed<float> outgoing(group, origin_matrix<float>(group->rank(), 40, 10));
  Placed<float> incoming(group, OwnedMatrix<float>(40, 10, -1.0F));
  std::deque<Pending> sent;
  if (group->rank() == 0) {
    sent.push_back(group->start_send(outgoing.view(), 1, 3));
  } else if (group->rank() == 1) {
    group->receive(incoming.view(), 0, 3);
    CHECK(incoming.fetched().values == origin_matrix<float>(0, 40, 10).values);
  }
  others->barrier();
  // The same where the rank waits for something it has started on the other group.
  if (group->rank() == 0) {
    sent.push_back(group->start_send(outgoing.view(), 1, 4));
  } else if (group->rank() == 1) {
    group->receive(incoming.view(), 0, 4);
  }
  double value = 1.0;
  others->start_all_reduce(TensorView(&value, DType::kFloat64, {1})).wait();
  CHECK(value == group->size());
  for (Pending& each : sent) {
    each.wait();
  }
}

TEST_CASE("a group of the device has the bits of the same group on the host", "[comm][staged]") {
  const TestGroup on_device(GroupKind::kStaged);
  const auto on_host = MpiCommunicator::over_world();
  OwnedMatrix<float> rough(700, 10, 0.0F);
  for (std::size_t i = 0; i < rough.values.size(); ++i) {
    rough.values[i] = 1.0F / static_cast<float>(3 + i * 7 + static_cast<std::size_t>(on_host->rank()) * 1001);
  }
  Placed<float> there(on_device, rough);
  // Within one block of the library's: beyond it both cut, each where it does.
  for (const std::int64_t row : {0, 40, 333}) {
    on_device->all_reduce(there.view().rows(row, row + 40));
    on_host->all_reduce(rough.view().rows(row, row + 40));
  }
  REQUIRE(there.fetched().values == rough.values);
}
