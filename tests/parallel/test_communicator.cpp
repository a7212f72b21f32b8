// RANKS 1 2 4
// All collectives but gatherv and scatterv (test_gather.cpp), of every kind of group, once with MPI's own
// limit and once with calls of at most 1000 elements.
#include "caravan/comm/communicator.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>
#include <thread>
#include <type_traits>

#include "caravan/comm/mpi_communicator.h"
#include "caravan/core/error.h"
#include "tests/support/group_kinds.h"
#include "tests/support/origin_data.h"
#include "tests/support/temporary_folder.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr std::int64_t kLimit = 1000;

std::int64_t calls_for(std::int64_t numel, std::int64_t limit) {
  return (numel + limit - 1) / limit;
}

/// Sum, maximum and minimum over the ranks of origin(rank, row, col).
std::int64_t expected(ReduceOp op, std::int64_t size, std::int64_t row, std::int64_t col) {
  switch (op) {
    case ReduceOp::kSum:
      return 100000 * (size * (size - 1) / 2) + size * origin(0, row, col);
    case ReduceOp::kMax:
      return origin(size - 1, row, col);
    default:
      return origin(0, row, col);
  }
}

template <class T>
void check_all_reduce(GroupKind kind, std::int64_t limit) {
  const TestGroup group(kind, limit);
  for (const ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax, ReduceOp::kMin}) {
    for (const std::int64_t rows : {0, 1, 100, 357}) {
      group->reset_traffic();
      Placed<T> values(group, origin_matrix<T>(group->rank(), rows, 10));
      group->all_reduce(values.view(), op);
      OwnedMatrix<T>& result = values.fetched();
      for (std::int64_t row = 0; row < rows; ++row) {
        for (std::int64_t col = 0; col < 10; ++col) {
          REQUIRE(result.at(row, col) == static_cast<T>(expected(op, group->size(), row, col)));
        }
      }
      if (group.is_mpi()) {
        REQUIRE(group->traffic()[Collective::kAllReduce].library_calls == calls_for(rows * 10, limit));
      }
    }
  }
}

}  // namespace

TEST_CASE("all_reduce leaves the sum, maximum and minimum on every rank, in one call or in chunks",
          "[comm][all_reduce]") {
  for (const GroupKind kind : kGroupKinds) {
    INFO(name_of(kind));
    for (const std::int64_t limit : {MpiCommunicator::kMaxCount, kLimit}) {
      check_all_reduce<float>(kind, limit);
      check_all_reduce<double>(kind, limit);
      check_all_reduce<std::int64_t>(kind, limit);
    }
  }
}

TEST_CASE("all_reduce refuses types that nobody adds and says which it can", "[comm][all_reduce]") {
  for (const GroupKind kind : kGroupKinds) {
    const TestGroup group(kind);
    Placed<std::int32_t> values(group, OwnedMatrix<std::int32_t>(2, 2, 0));
    REQUIRE_THROWS_AS(group->all_reduce(values.view()), CommError);
    REQUIRE_THROWS_WITH(group->all_reduce(values.view()),
                        Catch::Contains("int32[2, 2]") &&
                            Catch::Contains("float32, float64, int64, bfloat16 and float16 can be reduced"));
  }
}

TEMPLATE_TEST_CASE("over MPI 16-bit numbers are added in float32 and rounded once", "[comm][all_reduce]",
                   BFloat16, Float16) {
  const auto store = [](float value) {
    if constexpr (std::is_same_v<TestType, BFloat16>) {
      return to_bfloat16(value);
    } else {
      return to_float16(value);
    }
  };
  // 1 on rank 0 and less than half of its last place on the others: added in 16 bits they would all be lost.
  const float tiny = std::is_same_v<TestType, BFloat16> ? 0.0035F : 0.00045F;
  for (const GroupKind kind : {GroupKind::kMpi, GroupKind::kStaged, GroupKind::kDirect}) {
    INFO(name_of(kind));
    for (const std::int64_t limit : {MpiCommunicator::kMaxCount, kLimit}) {
      const TestGroup group(kind, limit);
      const int size = group->size();
      const TestType mine = store(group->rank() == 0 ? 1.0F : tiny);
      const TestType expected = store(1.0F + static_cast<float>(size - 1) * to_float(store(tiny)));
      for (const bool is_started : {false, true}) {
        Placed<TestType> values(group, OwnedMatrix<TestType>(123, 10, mine));
        if (is_started) {
          group->start_all_reduce(values.view()).wait();
        } else {
          group->all_reduce(values.view());
        }
        for (const TestType value : values.fetched().values) {
          REQUIRE(value.bits == expected.bits);
        }
      }
      Placed<TestType> parts(group, OwnedMatrix<TestType>(57 * size, 10, mine));
      Placed<TestType> sum(group, OwnedMatrix<TestType>(57, 10, store(-1.0F)));
      group->reduce_scatter(parts.view(), sum.view());
      for (const TestType value : sum.fetched().values) {
        REQUIRE(value.bits == expected.bits);
      }
      Placed<TestType> largest(group, OwnedMatrix<TestType>(3, 10, store(static_cast<float>(group->rank()))));
      group->all_reduce(largest.view(), ReduceOp::kMax);
      REQUIRE(to_float(largest.fetched().values.back()) == static_cast<float>(size - 1));
    }
  }
}

TEST_CASE("broadcast copies any root's tensor to all ranks, in one call or in chunks", "[comm][broadcast]") {
  for (const GroupKind kind : kGroupKinds) {
    INFO(name_of(kind));
    for (const std::int64_t limit : {MpiCommunicator::kMaxCount, kLimit}) {
      const TestGroup group(kind, limit);
      for (int root = 0; root < group->size(); ++root) {
        for (const std::int64_t rows : {0, 100, 357}) {
          Placed<float> values(group, origin_matrix<float>(group->rank(), rows, 10));
          group->reset_traffic();
          group->broadcast(values.view(), root);
          REQUIRE(values.fetched().values == origin_matrix<float>(root, rows, 10).values);
          if (group.is_mpi()) {
            REQUIRE(group->traffic()[Collective::kBroadcast].library_calls == calls_for(rows * 10, limit));
          }
        }
      }
    }
  }
}

TEMPLATE_TEST_CASE("tensors of every dtype keep their bits on the way", "[comm][broadcast]", BFloat16,
                   Float16, std::int32_t, std::int16_t, std::int8_t, std::uint8_t, bool,
                   std::complex<double>) {
  for (const GroupKind kind : kGroupKinds) {
    INFO(name_of(kind));
    const TestGroup group(kind, kLimit);
    OwnedMatrix<std::uint8_t> bytes(static_cast<std::int64_t>(sizeof(TestType)), 1500, 0);
    for (std::size_t i = 0; i < bytes.values.size(); ++i) {
      bytes.values[i] = static_cast<std::uint8_t>(i * 37 + static_cast<std::size_t>(group->rank()));
    }
    Placed<std::uint8_t> placed(group, bytes);
    group->broadcast(
        TensorView(placed.view().raw(), DTypeOf<TestType>::kValue, {1500}, placed.view().device()),
        group->size() - 1);
    const OwnedMatrix<std::uint8_t>& result = placed.fetched();
    for (std::size_t i = 0; i < result.values.size(); ++i) {
      REQUIRE(result.values[i] ==
              static_cast<std::uint8_t>(i * 37 + static_cast<std::size_t>(group->size()) - 1));
    }
  }
}

TEST_CASE("send_receive passes tensors of different sizes round a ring in chunks", "[comm][p2p]") {
  for (const GroupKind kind : kGroupKinds) {
    INFO(name_of(kind));
    const TestGroup group(kind, kLimit);
    const int next = (group->rank() + 1) % group->size();
    const int before = (group->rank() + group->size() - 1) % group->size();
    Placed<double> outgoing(
        group, origin_matrix<double>(group->rank(), group->rank() * 130, 10));  // rank 0 sends nothing
    Placed<double> incoming(group, OwnedMatrix<double>(before * 130, 10, -1));
    group->send_receive(outgoing.view(), next, incoming.view(), before);
    REQUIRE(incoming.fetched().values == origin_matrix<double>(before, before * 130, 10).values);
  }
}

TEST_CASE("send and receive match by peer and tag", "[comm][p2p]") {
  for (const GroupKind kind : kGroupKinds) {
    INFO(name_of(kind));
    const TestGroup group(kind, kLimit);
    const int last = group->size() - 1;
    if (last == 0) {
      return;  // nobody to send to; a group of one refuses it (test_self_communicator.cpp)
    }
    if (group->rank() == 0) {
      for (const int tag : {3, Communicator::kMaxTag}) {
        Placed<float> values(group, origin_matrix<float>(tag, 30, 10));
        group->send(values.view(), last, tag);
      }
      REQUIRE(group->traffic()[Collective::kPointToPoint].sent_bytes == 2 * 300 * 4);
    } else if (group->rank() == last) {
      for (const int tag : {Communicator::kMaxTag, 3}) {
        Placed<float> values(group, OwnedMatrix<float>(30, 10, -1));
        group->receive(values.view(), 0, tag);
        REQUIRE(values.fetched().values == origin_matrix<float>(tag, 30, 10).values);
      }
    }
  }
}

TEST_CASE("a message of another size than expected is an error on the receiver", "[comm][p2p]") {
  const auto group = MpiCommunicator::over_world();
  if (group->size() == 1) {
    return;
  }
  OwnedMatrix<float> values(3, 10, 0);
  if (group->rank() == 0) {
    group->send(values.view(), 1, 7);
    group->send(values.view(), 1, 7);
  } else if (group->rank() == 1) {
    REQUIRE_THROWS_WITH(group->receive(values.view().rows(0, 2), 0, 7),
                        Catch::Contains("MPI_Recv failed on rank 1") && Catch::Contains("TRUNCATE"));
    OwnedMatrix<float> larger(4, 10, 0);
    REQUIRE_THROWS_WITH(group->receive(larger.view(), 0, 7),
                        Catch::Contains("received 30 elements from rank 0"));
  }
}

TEST_CASE("byte strings of any length reach every rank, or root in rank order", "[comm][bytes]") {
  for (const GroupKind kind : kGroupKinds) {
    INFO(name_of(kind));
    const TestGroup group(kind, kLimit);
    for (int root = 0; root < group->size(); ++root) {
      std::string text(static_cast<std::size_t>(group->rank()) * 1300,
                       static_cast<char>('a' + group->rank()));
      const std::vector<std::string> all = group->gather_bytes(text, root);
      REQUIRE(all.size() == (group->rank() == root ? static_cast<std::size_t>(group->size()) : 0));
      for (std::size_t r = 0; r < all.size(); ++r) {
        REQUIRE(all[r] == std::string(r * 1300, static_cast<char>('a' + r)));
      }
      group->broadcast_bytes(text, root);
      REQUIRE(text == std::string(static_cast<std::size_t>(root) * 1300, static_cast<char>('a' + root)));
    }
  }
}

TEST_CASE("all_reduce_value combines one number per rank", "[comm][all_reduce]") {
  for (const GroupKind kind : kGroupKinds) {
    const TestGroup group(kind);
    const std::int64_t size = group->size();
    const double mine = group->rank() + 0.5;
    REQUIRE(group->all_reduce_value(mine) == static_cast<double>(size * size) / 2);
    REQUIRE(group->all_reduce_value(mine, ReduceOp::kMin) == 0.5);
    const std::int64_t large = (std::int64_t{1} << 60) + group->rank();
    REQUIRE(group->all_reduce_value(large, ReduceOp::kMax) == (std::int64_t{1} << 60) + size - 1);
  }
}

TEST_CASE("split makes groups by colour, ordered by key, that keep the limit", "[comm][split]") {
  for (const GroupKind kind : kGroupKinds) {
    INFO(name_of(kind));
    const TestGroup group(kind, kLimit);
    const int color = group->rank() % 2;
    const auto part = group->split(color, -group->rank());  // reversed
    REQUIRE(part->size() == (group->size() - color + 1) / 2);
    REQUIRE(part->rank() == part->size() - 1 - group->rank() / 2);
    Placed<double> values(group, origin_matrix<double>(group->rank(), 250, 10));
    part->all_reduce(values.view(), ReduceOp::kMin);
    REQUIRE(values.fetched().values == origin_matrix<double>(color, 250, 10).values);
    if (group.is_mpi()) {
      REQUIRE(part->traffic()[Collective::kAllReduce].library_calls == 3);
    }
    const auto one = part->alone();
    REQUIRE(one->size() == 1);
    one->all_reduce(values.view());  // a group of one serves what the group serves
  }
}

TEST_CASE("traffic counts payload: sent and received agree over the ranks", "[comm][traffic]") {
  for (const GroupKind kind : kGroupKinds) {
    INFO(name_of(kind));
    const TestGroup group(kind);
    const std::int64_t size = group->size();
    Placed<float> values(group, OwnedMatrix<float>(5, 10, 1));
    group->all_reduce(values.view());
    group->broadcast(values.view(), 0);
    group->barrier();
    const Traffic traffic = group->traffic();
    REQUIRE(traffic[Collective::kAllReduce].calls == 1);
    REQUIRE(traffic[Collective::kAllReduce].sent_bytes == (size > 1 ? 200 : 0));
    REQUIRE(traffic[Collective::kBroadcast].sent_bytes == (group->rank() == 0 ? 200 * (size - 1) : 0));
    REQUIRE(traffic[Collective::kBroadcast].received_bytes == (group->rank() == 0 ? 0 : 200));
    REQUIRE(traffic[Collective::kBarrier].calls == 1);
    REQUIRE(traffic.total().calls == 3);
    const std::int64_t sent = group->all_reduce_value(traffic.total().sent_bytes);
    REQUIRE(sent == group->all_reduce_value(traffic.total().received_bytes));
    group->reset_traffic();
    REQUIRE(group->traffic().total().calls == 0);
  }
}

TEST_CASE("barrier waits for every rank", "[comm][barrier]") {
  const auto group = MpiCommunicator::over_world();
  // What the ranks leave before the barrier goes past the communicator: files of one machine.
  std::optional<TemporaryFolder> own;
  std::string folder;
  if (group->rank() == 0) {
    own.emplace();
    folder = own->path().string();
  }
  group->broadcast_bytes(folder, 0);
  const auto file_of = [&](int rank) { return fmt::format("{}/rank{}", folder, rank); };
  if (group->rank() == group->size() - 1) {
    std::this_thread::sleep_for(
        std::chrono::milliseconds(300));  // the others are through, if nothing holds them
  }
  write_text(file_of(group->rank()), "here");
  group->barrier();
  for (int rank = 0; rank < group->size(); ++rank) {
    CAPTURE(rank, group->rank());
    CHECK(std::filesystem::exists(file_of(rank)));
  }
  group->barrier();  // the folder goes with rank 0
}

TEST_CASE("views that cannot travel are refused before anything is sent", "[comm][errors]") {
  const auto group = MpiCommunicator::over_world();
  OwnedMatrix<float> values(4, 10, 0);
  REQUIRE_THROWS_WITH(group->all_reduce(values.view().slice(1, 0, 5)), Catch::Contains("not contiguous"));
  REQUIRE_THROWS_WITH(group->all_reduce(TensorView()), Catch::Contains("undefined"));
  REQUIRE_THROWS_WITH(
      group->broadcast(TensorView(values.values.data(), DType::kFloat32, {4}, {DeviceKind::kCuda, 0}), 0),
      Catch::Contains("not in host memory"));
  REQUIRE_THROWS_WITH(group->broadcast(values.view(), group->size()), Catch::Contains("in a group of"));
  REQUIRE_THROWS_WITH(group->send(values.view(), group->rank(), 0), Catch::Contains("itself"));
  REQUIRE_THROWS_WITH(group->send_receive(values.view(), group->rank(), values.view(), group->rank()),
                      Catch::Contains("overlap"));
  REQUIRE_THROWS_AS(MpiCommunicator::over_world(0), InternalError);
  REQUIRE(group->traffic().total().calls == 0);

  const TestGroup on_device(GroupKind::kStaged);
  Placed<float> there(on_device, OwnedMatrix<float>(4 * on_device->size(), 10, 0));
  REQUIRE(on_device->serves(there.view().device()));
  REQUIRE_THROWS_WITH(
      on_device->broadcast(TensorView(values.values.data(), DType::kFloat32, {4}, {DeviceKind::kCuda, 1}), 0),
      Catch::Contains("the group serves no such device"));
  REQUIRE_THROWS_WITH(on_device->all_gather(values.view(), there.view()),
                      Catch::Contains("not on one device"));
  const int next = (on_device->rank() + 1) % on_device->size();
  REQUIRE_THROWS_WITH(on_device->send_receive(values.view(), next, there.view(), next),
                      Catch::Contains("not on one device"));
  REQUIRE(on_device->traffic().total().calls == 0);
}
