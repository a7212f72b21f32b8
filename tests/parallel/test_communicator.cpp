// RANKS 1 2 4
// All collectives but gatherv and scatterv (test_gather.cpp), once with MPI's own limit and once with calls
// of at most 1000 elements.
#include "caravan/comm/communicator.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>
#include <thread>

#include "caravan/comm/mpi_communicator.h"
#include "caravan/core/error.h"
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
void check_all_reduce(std::int64_t limit) {
  const auto group = MpiCommunicator::over_world(limit);
  for (const ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax, ReduceOp::kMin}) {
    for (const std::int64_t rows : {0, 1, 100, 357}) {
      group->reset_traffic();
      auto values = origin_matrix<T>(group->rank(), rows, 10);
      group->all_reduce(values.view(), op);
      for (std::int64_t row = 0; row < rows; ++row) {
        for (std::int64_t col = 0; col < 10; ++col) {
          REQUIRE(values.at(row, col) == static_cast<T>(expected(op, group->size(), row, col)));
        }
      }
      REQUIRE(group->traffic()[Collective::kAllReduce].library_calls == calls_for(rows * 10, limit));
    }
  }
}

}  // namespace

TEST_CASE("all_reduce leaves the sum, maximum and minimum on every rank, in one call or in chunks",
          "[comm][all_reduce]") {
  for (const std::int64_t limit : {MpiCommunicator::kMaxCount, kLimit}) {
    check_all_reduce<float>(limit);
    check_all_reduce<double>(limit);
    check_all_reduce<std::int64_t>(limit);
  }
}

TEST_CASE("all_reduce refuses types MPI cannot add and says which it can", "[comm][all_reduce]") {
  const auto group = MpiCommunicator::over_world();
  OwnedMatrix<BFloat16> values(2, 2, BFloat16{});
  REQUIRE_THROWS_AS(group->all_reduce(values.view()), CommError);
  REQUIRE_THROWS_WITH(group->all_reduce(values.view()),
                      Catch::Contains("bfloat16[2, 2]") && Catch::Contains("float32, float64 and int64"));
}

TEST_CASE("broadcast copies any root's tensor to all ranks, in one call or in chunks", "[comm][broadcast]") {
  for (const std::int64_t limit : {MpiCommunicator::kMaxCount, kLimit}) {
    const auto group = MpiCommunicator::over_world(limit);
    for (int root = 0; root < group->size(); ++root) {
      for (const std::int64_t rows : {0, 100, 357}) {
        auto values = origin_matrix<float>(group->rank(), rows, 10);
        group->reset_traffic();
        group->broadcast(values.view(), root);
        REQUIRE(values.values == origin_matrix<float>(root, rows, 10).values);
        REQUIRE(group->traffic()[Collective::kBroadcast].library_calls == calls_for(rows * 10, limit));
      }
    }
  }
}

TEMPLATE_TEST_CASE("tensors of every dtype keep their bits on the way", "[comm][broadcast]", BFloat16,
                   Float16, std::int32_t, std::int16_t, std::int8_t, std::uint8_t, bool,
                   std::complex<double>) {
  const auto group = MpiCommunicator::over_world(kLimit);
  std::vector<std::uint8_t> bytes(sizeof(TestType) * 1500);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::uint8_t>(i * 37 + static_cast<std::size_t>(group->rank()));
  }
  group->broadcast(TensorView(bytes.data(), DTypeOf<TestType>::kValue, {1500}), group->size() - 1);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    REQUIRE(bytes[i] == static_cast<std::uint8_t>(i * 37 + static_cast<std::size_t>(group->size()) - 1));
  }
}

TEST_CASE("send_receive passes tensors of different sizes round a ring in chunks", "[comm][p2p]") {
  const auto group = MpiCommunicator::over_world(kLimit);
  const int next = (group->rank() + 1) % group->size();
  const int before = (group->rank() + group->size() - 1) % group->size();
  auto outgoing = origin_matrix<double>(group->rank(), group->rank() * 130, 10);  // rank 0 sends nothing
  OwnedMatrix<double> incoming(before * 130, 10, -1);
  group->send_receive(outgoing.view(), next, incoming.view(), before);
  REQUIRE(incoming.values == origin_matrix<double>(before, before * 130, 10).values);
}

TEST_CASE("send and receive match by peer and tag", "[comm][p2p]") {
  const auto group = MpiCommunicator::over_world(kLimit);
  const int last = group->size() - 1;
  if (last == 0) {
    return;  // nobody to send to; a group of one refuses it (test_self_communicator.cpp)
  }
  if (group->rank() == 0) {
    for (const int tag : {3, Communicator::kMaxTag}) {
      auto values = origin_matrix<float>(tag, 30, 10);
      group->send(values.view(), last, tag);
    }
    REQUIRE(group->traffic()[Collective::kPointToPoint].sent_bytes == 2 * 300 * 4);
  } else if (group->rank() == last) {
    for (const int tag : {Communicator::kMaxTag, 3}) {
      OwnedMatrix<float> values(30, 10, -1);
      group->receive(values.view(), 0, tag);
      REQUIRE(values.values == origin_matrix<float>(tag, 30, 10).values);
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
  const auto group = MpiCommunicator::over_world(kLimit);
  for (int root = 0; root < group->size(); ++root) {
    std::string text(static_cast<std::size_t>(group->rank()) * 1300, static_cast<char>('a' + group->rank()));
    const std::vector<std::string> all = group->gather_bytes(text, root);
    REQUIRE(all.size() == (group->rank() == root ? static_cast<std::size_t>(group->size()) : 0));
    for (std::size_t r = 0; r < all.size(); ++r) {
      REQUIRE(all[r] == std::string(r * 1300, static_cast<char>('a' + r)));
    }
    group->broadcast_bytes(text, root);
    REQUIRE(text == std::string(static_cast<std::size_t>(root) * 1300, static_cast<char>('a' + root)));
  }
}

TEST_CASE("all_reduce_value combines one number per rank", "[comm][all_reduce]") {
  const auto group = MpiCommunicator::over_world();
  const std::int64_t size = group->size();
  const double mine = group->rank() + 0.5;
  REQUIRE(group->all_reduce_value(mine) == static_cast<double>(size * size) / 2);
  REQUIRE(group->all_reduce_value(mine, ReduceOp::kMin) == 0.5);
  const std::int64_t large = (std::int64_t{1} << 60) + group->rank();
  REQUIRE(group->all_reduce_value(large, ReduceOp::kMax) == (std::int64_t{1} << 60) + size - 1);
}

TEST_CASE("split makes groups by colour, ordered by key, that keep the limit", "[comm][split]") {
  const auto group = MpiCommunicator::over_world(kLimit);
  const int color = group->rank() % 2;
  const auto part = group->split(color, -group->rank());  // reversed
  REQUIRE(part->size() == (group->size() - color + 1) / 2);
  REQUIRE(part->rank() == part->size() - 1 - group->rank() / 2);
  auto values = origin_matrix<double>(group->rank(), 250, 10);
  part->all_reduce(values.view(), ReduceOp::kMin);
  REQUIRE(values.values == origin_matrix<double>(color, 250, 10).values);
  REQUIRE(part->traffic()[Collective::kAllReduce].library_calls == 3);
}

TEST_CASE("traffic counts payload: sent and received agree over the ranks", "[comm][traffic]") {
  const auto group = MpiCommunicator::over_world();
  const std::int64_t size = group->size();
  OwnedMatrix<float> values(5, 10, 1);
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
}
