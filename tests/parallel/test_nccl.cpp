// RANKS 2 4
// NcclCommunicator beyond the common contract, over the fake NCCL: ways for messages, order of streams,
// faults.
#include "caravan/comm/nccl_communicator.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <limits>
#include <mutex>
#include <thread>

#include "caravan/comm/comm_watch.h"
#include "caravan/comm/recorded_exchanges.h"
#include "caravan/core/error.h"
#include "tests/support/fake_nccl.h"
#include "tests/support/group_kinds.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr int kRemoteError = 6;
constexpr int kCudaError = 1;

/// What a CommWatch has said, until it says something or ten seconds are over.
class Heard {
 public:
  void say(const std::string& text) {
    const std::lock_guard lock(mutex_);
    text_ += text;
  }
  std::string wait() {
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    for (;;) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      const std::lock_guard lock(mutex_);
      if (!text_.empty() || std::chrono::steady_clock::now() > give_up) {
        return text_;
      }
    }
  }

 private:
  std::mutex mutex_;
  std::string text_;
};

}  // namespace

TEST_CASE("no call waits on the host for other ranks", "[comm][nccl]") {
  const TestGroup group(GroupKind::kNccl);
  const auto others = MpiCommunicator::over_world();
  const int size = group->size();
  Placed<double> values(group, OwnedMatrix<double>(30, 10, 1.0));
  Placed<double> gathered(group, OwnedMatrix<double>(30 * size, 10, -1.0));
  Placed<double> incoming(group, OwnedMatrix<double>(30, 10, -1.0));
  const auto exchange = [&] {
    group->all_reduce(values.view());
    group->all_gather(values.view(), gathered.view());
    group->reduce_scatter(gathered.view(), values.view());
    group->broadcast(values.view(), 1);
    group->send_receive(values.view(), (group->rank() + 1) % size, incoming.view(),
                        (group->rank() + size - 1) % size);
  };
  if (group->rank() == 0) {
    exchange();  // the others come later: after a barrier that this rank must reach
  }
  others->barrier();
  if (group->rank() != 0) {
    exchange();
  }
  const double expected = static_cast<double>(size) * size;
  REQUIRE(incoming.fetched().values == std::vector<double>(300, expected));
}

TEST_CASE("messages with prepared tags have ways of their own, in any order of tags", "[comm][nccl]") {
  const TestGroup group(GroupKind::kNccl);
  const int size = group->size();
  const int rank = group->rank();
  const int next = (rank + 1) % size;
  const int before = (rank + size - 1) % size;
  const int streams = group.device()->streams();
  for (int time = 0; time < 2; ++time) {
    group->prepare_messages(std::array{0, 1});
    // To and from each neighbour, two tags: with two ranks both neighbours are one.
    CHECK(group.device()->streams() == streams + (size == 2 ? 4 : 8));
  }
  Placed<float> keys(group, origin_matrix<float>(rank, 70, 10));
  Placed<float> gradients(group, origin_matrix<float>(rank + 50, 60, 10));
  Placed<float> more(group, origin_matrix<float>(rank + 20, 70, 10));
  Placed<float> keys_in(group, OwnedMatrix<float>(70, 10, -1.0F));
  Placed<float> gradients_in(group, OwnedMatrix<float>(60, 10, -1.0F));
  Placed<float> back_in(group, OwnedMatrix<float>(60, 10, -1.0F));
  Placed<float> more_in(group, OwnedMatrix<float>(70, 10, -1.0F));
  // Receives first everywhere, the tags in another order than they are sent in, both directions at once.
  Pending g = group->start_receive(gradients_in.view(), before, 1);
  Pending b = group->start_receive(back_in.view(), next, 1);
  Pending k = group->start_receive(keys_in.view(), before, 0);
  Pending m = group->start_receive(more_in.view(), before, 0);
  Pending sent_keys = group->start_send(keys.view(), next, 0);
  Pending sent_more = group->start_send(more.view(), next, 0);
  group->send(gradients.view(), next, 1);
  Pending sent_back = group->start_send(gradients.view(), before, 1);
  for (Pending* pending : {&sent_back, &m, &sent_keys, &g, &k, &sent_more, &b}) {
    pending->wait();
  }
  CHECK(keys_in.fetched().values == origin_matrix<float>(before, 70, 10).values);
  CHECK(more_in.fetched().values == origin_matrix<float>(before + 20, 70, 10).values);
  CHECK(gradients_in.fetched().values == origin_matrix<float>(before + 50, 60, 10).values);
  CHECK(back_in.fetched().values == origin_matrix<float>(next + 50, 60, 10).values);
  REQUIRE(group->traffic()[Collective::kPointToPoint].library_calls == 8);
}

TEST_CASE("16-bit numbers are added as NCCL adds them", "[comm][nccl]") {
  const TestGroup group(GroupKind::kNccl);
  const float sum = 0.25F * static_cast<float>(group->size() * (group->size() + 1));  // no sum is rounded
  const float mine = 0.5F * static_cast<float>(group->rank() + 1);
  Placed<BFloat16> brain(group, OwnedMatrix<BFloat16>(7, 10, to_bfloat16(mine)));
  Placed<Float16> half(group, OwnedMatrix<Float16>(7 * group->size(), 10, to_float16(mine)));
  Placed<Float16> part(group, OwnedMatrix<Float16>(7, 10, to_float16(-1.0F)));
  group->all_reduce(brain.view());
  group->reduce_scatter(half.view(), part.view());
  CHECK(to_float(brain.fetched().values.back()) == sum);
  CHECK(to_float(part.fetched().values.back()) == sum);
}

TEST_CASE("a call that NCCL refuses names call, rank, place and what to do", "[comm][nccl]") {
  const TestGroup group(GroupKind::kNccl);
  group->set_name("tp");
  Placed<float> values(group, OwnedMatrix<float>(3, 10, 1.0F));
  group->all_reduce(values.view());
  make_nccl_fail(*fake_nccl(), "AllReduce", 0, kCudaError, false);
  REQUIRE_THROWS_AS(group->all_reduce(values.view()), CommError);
  make_nccl_fail(*fake_nccl(), "AllReduce", 0, kCudaError, false);
  REQUIRE_THROWS_WITH(
      group->all_reduce(values.view()),
      Catch::StartsWith(fmt::format(
          "ncclAllReduce failed on rank {} of {} of group tp (nccl_communicator.cpp:", group->rank(),
          group->size())) &&
          Catch::Contains("unhandled cuda error (NCCL error 1): fake: told on purpose; a CUDA call failed"));
}

TEST_CASE("ranks that NCCL does not bring together learn what to do", "[comm][nccl]") {
  constexpr int kInvalidUsage = 5;
  const auto library = fake_nccl();
  ThreadedDevice device;
  make_nccl_fail(*library, "CommInitRank", 0, kInvalidUsage, false);
  REQUIRE_THROWS_WITH(NcclCommunicator(MpiCommunicator::over_world(), device, library),
                      Catch::StartsWith("ncclCommInitRank failed on rank") &&
                          Catch::Contains("ranks that share a GPU need an NCCL_HOSTID each"));
}

TEST_CASE("a fault that NCCL finds by itself is thrown by the next call or wait", "[comm][nccl]") {
  const auto library = fake_nccl();
  for (const bool is_next_call : {false, true}) {
    const TestGroup group(GroupKind::kNccl);
    group->set_name("dp_shard");
    Placed<float> values(group, OwnedMatrix<float>(3, 10, 1.0F));
    make_nccl_fail(*library, "AllReduce", 0, kRemoteError, true);
    Pending reduced = group->start_all_reduce(values.view());
    const auto go_on = [&] { is_next_call ? group->broadcast(values.view(), 0) : reduced.wait(); };
    REQUIRE_THROWS_WITH(go_on(), Catch::StartsWith("ncclCommGetAsyncError failed on rank") &&
                                     Catch::Contains("of group dp_shard") &&
                                     Catch::Contains("another rank was lost or ended: look for its message"));
    group.device()->finish();  // it reads what the test is about to free
  }
}

TEST_CASE("the watch tells of a lost rank while nobody asks", "[comm][nccl][watch]") {
  ThreadedDevice device;
  const auto library = fake_nccl();
  const auto control = MpiCommunicator::over_world();
  auto group = std::make_unique<NcclCommunicator>(MpiCommunicator::over_world(), device, library);
  group->set_name("tp");
  Placed<float> values(&device, OwnedMatrix<float>(3, 10, 1.0F));
  group->all_reduce(values.view());
  REQUIRE(values.fetched().values[0] == static_cast<float>(group->size()));
  Heard heard;
  const CommWatch watch(std::numeric_limits<double>::infinity(),
                        [&](const std::string& report) { heard.say(report); });
  if (control->rank() == 1) {
    control->barrier();
    group.reset();  // gone, and says nothing
  } else {
    group->all_reduce(values.view());  // returns: the device waits, not the host
    control->barrier();
    const std::string text = heard.wait();
    CHECK_THAT(text, Catch::StartsWith("ncclCommGetAsyncError failed on rank") &&
                         Catch::Contains("remote process exited or there was a network error") &&
                         Catch::Contains("under way is all_reduce number 3 of group tp") &&
                         Catch::Contains("test_nccl.cpp:") && Catch::Contains("its last operations:"));
    group.reset();  // aborts what is stuck
  }
  control->barrier();
}

TEST_CASE("a fault that was thrown is told by the watch where the rank cannot end by itself",
          "[comm][nccl][watch]") {
  const auto library = fake_nccl();
  const TestGroup group(GroupKind::kNccl);
  group->set_name("tp");
  Placed<float> values(group, OwnedMatrix<float>(3, 10, 1.0F));
  make_nccl_fail(*library, "AllReduce", 0, kRemoteError, true);
  Pending reduced = group->start_all_reduce(values.view());
  REQUIRE_THROWS_AS(reduced.wait(), CommError);
  // As if memory of the device were freed here, behind work that cannot end.
  Heard heard;
  const CommWatch watch(0.4, [&](const std::string& report) { heard.say(report); });
  CHECK_THAT(heard.wait(),
             Catch::StartsWith("ncclCommGetAsyncError failed on rank") && Catch::Contains("of group tp"));
  group.device()->finish();
}

TEST_CASE("the watch tells of work that waits too long on the device", "[comm][nccl][watch]") {
  ThreadedDevice device;
  const auto library = fake_nccl();
  const auto control = MpiCommunicator::over_world();
  NcclCommunicator group(MpiCommunicator::over_world(), device, library);
  group.set_name("fsdp");
  Placed<float> values(&device, OwnedMatrix<float>(3, 10, 1.0F));
  Heard heard;
  {
    const CommWatch watch(0.4, [&](const std::string& report) { heard.say(report); });
    if (control->rank() != 1) {
      group.all_reduce(values.view());
      CHECK_THAT(heard.wait(),
                 Catch::StartsWith("has waited 0.") &&
                     Catch::Contains(" s for other ranks in all_reduce number 2 of group fsdp"));
    }
  }
  control->barrier();
  if (control->rank() == 1) {
    group.all_reduce(values.view());
  }
  REQUIRE(values.fetched().values[0] == static_cast<float>(group.size()));
}

TEST_CASE("the watch tells of a replay whose exchanges do not end, and the traffic counts each",
          "[comm][nccl]") {
  ThreadedDevice device;
  const auto library = fake_nccl();
  const auto control = MpiCommunicator::over_world();
  NcclCommunicator group(MpiCommunicator::over_world(), device, library);
  group.set_name("tp");
  REQUIRE(group.can_be_recorded());
  Placed<float> values(&device, OwnedMatrix<float>(3, 10, 1.0F));
  // This device cannot record: what is to be recorded runs, and a replay is work that takes its time.
  RecordedExchanges exchanges({&group});
  const auto exchange = [&] { group.all_reduce(values.view()); };
  exchanges.record(exchange);
  CHECK(group.traffic().total().calls == 0);
  Heard heard;
  {
    const CommWatch watch(0.4, [&](const std::string& report) { heard.say(report); });
    if (control->rank() != 1) {
      exchanges.replay([&] {
        ThreadedDevice::enqueue(device.stream(StreamId::kCompute),
                                [] { std::this_thread::sleep_for(std::chrono::seconds(2)); });
      });
      CHECK_THAT(heard.wait(),
                 Catch::StartsWith("has waited 0.") &&
                     Catch::Contains(" s for other ranks in recorded exchanges number 3 of group tp") &&
                     Catch::Contains("120 bytes"));
    } else {
      exchanges.replay([] {});
    }
  }
  device.finish();
  const TrafficCounter& counted = group.traffic()[Collective::kAllReduce];
  CHECK(counted.calls == 1);
  CHECK(counted.sent_bytes == 120);
  control->barrier();
}
