// RANKS 1 2 4 8
// all_gather, reduce_scatter and everything that is started and waited on, of every kind of group, once with
// MPI's own limit and once with calls of at most 1000 elements.
#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>

#include "caravan/comm/communicator.h"
#include "caravan/comm/mpi_communicator.h"
#include "caravan/core/counter_rng.h"
#include "caravan/core/error.h"
#include "tests/support/group_kinds.h"
#include "tests/support/origin_data.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr std::int64_t kLimit = 1000;
constexpr std::int64_t kLimits[] = {MpiCommunicator::kMaxCount, kLimit};
constexpr std::int64_t kRowCounts[] = {0, 1, 100, 357};

/// What all_gather of every rank's origin_matrix must give.
template <class T>
OwnedMatrix<T> gathered_origins(std::int64_t size, std::int64_t rows) {
  OwnedMatrix<T> whole(size * rows, 10, T{});
  for (std::int64_t r = 0; r < size; ++r) {
    const auto part = origin_matrix<T>(r, rows, 10);
    std::copy(part.values.begin(), part.values.end(), whole.values.begin() + r * rows * 10);
  }
  return whole;
}

template <class T>
void check_all_gather(GroupKind kind, std::int64_t limit) {
  const TestGroup group(kind, limit);
  const std::int64_t size = group->size();
  for (const std::int64_t rows : kRowCounts) {
    const auto expected = gathered_origins<T>(size, rows);
    const auto origins = origin_matrix<T>(group->rank(), rows, 10);
    Placed<T> mine(group, origins);
    Placed<T> apart(group, OwnedMatrix<T>(size * rows, 10, T{-1}));
    group->reset_traffic();
    group->all_gather(mine.view(), apart.view());
    REQUIRE(apart.fetched().values == expected.values);
    const std::int64_t chunks = (rows * 10 + limit - 1) / limit;
    if (group.is_mpi()) {
      REQUIRE(group->traffic()[Collective::kAllGather].library_calls == 2 * (size - 1) * chunks);
    }

    OwnedMatrix<T> start(size * rows, 10, T{-1});
    std::copy(origins.values.begin(), origins.values.end(), start.values.begin() + group->rank() * rows * 10);
    Placed<T> in_place(group, start);
    group->all_gather(in_place.view().rows(group->rank() * rows, (group->rank() + 1) * rows),
                      in_place.view());
    REQUIRE(in_place.fetched().values == expected.values);
  }
}

/// Σ over `size` ranks of origin(rank, row, col)
std::int64_t origin_sum(std::int64_t size, std::int64_t row, std::int64_t col) {
  std::int64_t sum = 0;
  for (std::int64_t r = 0; r < size; ++r) {
    sum += origin(r, row, col);
  }
  return sum;
}

/// Rank r holds, in the part of rank p, origin(r, row, col) of the row counted over all parts.
template <class T>
void check_reduce_scatter(GroupKind kind, std::int64_t limit) {
  const TestGroup group(kind, limit);
  const std::int64_t size = group->size();
  for (const std::int64_t rows : kRowCounts) {
    const auto before = origin_matrix<T>(group->rank(), size * rows, 10);
    Placed<T> values(group, before);
    Placed<T> mine(group, OwnedMatrix<T>(rows, 10, T{-1}));
    group->reduce_scatter(values.view(), mine.view());
    REQUIRE(values.fetched().values == before.values);
    group->reduce_scatter(values.view(),
                          values.view().rows(group->rank() * rows, (group->rank() + 1) * rows));
    OwnedMatrix<T>& apart = mine.fetched();
    OwnedMatrix<T>& in_place = values.fetched();
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t global = group->rank() * rows + row;
      for (std::int64_t col = 0; col < 10; ++col) {
        const auto expected = static_cast<T>(origin_sum(size, global, col));
        REQUIRE(apart.at(row, col) == expected);
        REQUIRE(in_place.at(global, col) == expected);
      }
    }
  }
}

/// Numbers whose sum depends on the order of addition.
template <class T>
std::vector<T> rough_numbers(std::int64_t rank, std::size_t count) {
  const CounterRng rng(11, static_cast<std::uint64_t>(rank));
  std::vector<T> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    values[i] = static_cast<T>(rng.normal(2 * i) * std::exp(3.0 * rng.normal(2 * i + 1)));
  }
  return values;
}

/// The same as a row.
template <class T>
OwnedMatrix<T> row_of(const std::vector<T>& values) {
  OwnedMatrix<T> row(1, static_cast<std::int64_t>(values.size()), T{});
  row.values = values;
  return row;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

template <class T>
void check_same_bits_everywhere(GroupKind kind, std::int64_t limit, std::size_t count) {
  const TestGroup group(kind, limit);
  const auto mine = rough_numbers<T>(group->rank(), count);
  const auto reduced = [&](bool is_started) {
    Placed<T> values(group, row_of(mine));
    if (is_started) {
      group->start_all_reduce(values.view()).wait();
    } else {
      group->all_reduce(values.view());
    }
    return values.fetched().values;
  };
  for (const bool is_started : {false, true}) {
    const std::vector<T> result = reduced(is_started);
    Placed<T> of_rank_0(group, row_of(result));
    group->broadcast(of_rank_0.view(), 0);
    REQUIRE(same_bits(result, of_rank_0.fetched().values));
    REQUIRE(same_bits(result, reduced(is_started)));
  }
}

}  // namespace

TEST_CASE("all_gather puts the parts in rank order, apart or in place", "[comm][all_gather]") {
  for (const GroupKind kind : kGroupKinds) {
    INFO(name_of(kind));
    for (const std::int64_t limit : kLimits) {
      check_all_gather<float>(kind, limit);
      check_all_gather<std::int32_t>(kind, limit);
      check_all_gather<double>(kind, limit);
    }
  }
}

TEST_CASE("reduce_scatter leaves each rank the sum of its part, apart or in place",
          "[comm][reduce_scatter]") {
  for (const GroupKind kind : kGroupKinds) {
    INFO(name_of(kind));
    for (const std::int64_t limit : kLimits) {
      check_reduce_scatter<float>(kind, limit);
      check_reduce_scatter<double>(kind, limit);
      check_reduce_scatter<std::int64_t>(kind, limit);
    }
  }
}

TEST_CASE("reduce_scatter over MPI adds in rank order, bit for bit", "[comm][reduce_scatter]") {
  const GroupKind kind = GENERATE(GroupKind::kMpi, GroupKind::kStaged, GroupKind::kDirect);
  const TestGroup group(kind, kLimit);
  const auto size = static_cast<std::size_t>(group->size());
  constexpr std::size_t kCount = 3001;
  Placed<float> values(group, row_of(rough_numbers<float>(group->rank(), size * kCount)));
  Placed<float> mine(group, OwnedMatrix<float>(1, kCount, 0.0F));
  group->reduce_scatter(values.view(), mine.view());
  const std::size_t begin = static_cast<std::size_t>(group->rank()) * kCount;
  std::vector<float> expected = rough_numbers<float>(0, size * kCount);
  for (std::size_t r = 1; r < size; ++r) {
    const auto other = rough_numbers<float>(static_cast<std::int64_t>(r), size * kCount);
    std::transform(expected.begin(), expected.end(), other.begin(), expected.begin(), std::plus<>());
  }
  const auto own = expected.begin() + static_cast<std::ptrdiff_t>(begin);
  REQUIRE(same_bits(mine.fetched().values, std::vector<float>(own, own + kCount)));
}

TEST_CASE("all ranks end with the same bits of a sum, every time", "[comm][all_reduce]") {
  for (const GroupKind kind : kGroupKinds) {
    INFO(name_of(kind));
    for (const std::int64_t limit : kLimits) {
      for (const std::size_t count : {std::size_t{1}, std::size_t{2500}, std::size_t{40000}}) {
        check_same_bits_everywhere<float>(kind, limit, count);
        check_same_bits_everywhere<double>(kind, limit, count);
      }
    }
  }
  check_same_bits_everywhere<float>(GroupKind::kMpi, MpiCommunicator::kMaxCount, 3000000);  // several blocks
}

TEST_CASE("started work completes in any order of waits, with progress between", "[comm][started]") {
  const GroupKind kind = GENERATE(GroupKind::kMpi, GroupKind::kStaged, GroupKind::kDirect, GroupKind::kNccl);
  for (const std::int64_t limit : kLimits) {
    const TestGroup group(kind, limit);
    const std::int64_t size = group->size();
    const std::int64_t rank = group->rank();
    Placed<double> reduced(group, origin_matrix<double>(rank, 357, 10));
    Placed<double> largest(group, origin_matrix<double>(rank, 7, 10));
    Placed<float> mine(group, origin_matrix<float>(rank, 357, 10));
    Placed<double> values(group, origin_matrix<double>(rank, size * 120, 10));
    Placed<float> gathered(group, OwnedMatrix<float>(size * 357, 10, -1.0F));
    Placed<double> scattered(group, OwnedMatrix<double>(120, 10, -1.0));
    Pending a = group->start_all_reduce(reduced.view());
    Pending b = group->start_all_gather(mine.view(), gathered.view());
    Pending c = group->start_reduce_scatter(values.view(), scattered.view());
    Pending d = group->start_all_reduce(largest.view(), ReduceOp::kMax);
    group->progress();
    // Not the same order everywhere.
    for (Pending* pending : rank % 2 == 0 ? std::array{&d, &b, &a, &c} : std::array{&c, &a, &d, &b}) {
      pending->wait();
      group->progress();
    }
    REQUIRE(reduced.fetched().at(356, 9) == static_cast<double>(origin_sum(size, 356, 9)));
    REQUIRE(largest.fetched().values == origin_matrix<double>(size - 1, 7, 10).values);
    REQUIRE(gathered.fetched().values == gathered_origins<float>(size, 357).values);
    REQUIRE(scattered.fetched().at(119, 3) == static_cast<double>(origin_sum(size, rank * 120 + 119, 3)));
  }
}

TEST_CASE("progress alone brings a large message in", "[comm][started]") {
  const auto group = MpiCommunicator::over_world();
  const int size = group->size();
  if (size == 1) {
    return;
  }
  const int next = (group->rank() + 1) % size;
  const int before = (group->rank() + size - 1) % size;
  constexpr std::int64_t kRows = 9000;  // 720 kB: beyond what a library sends without the receiver
  auto outgoing = origin_matrix<double>(group->rank(), kRows, 10);
  OwnedMatrix<double> incoming(kRows, 10, -1.0);
  Pending received = group->start_receive(incoming.view(), before, 5);
  Pending sent = group->start_send(outgoing.view(), next, 5);
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  const volatile double* last = &incoming.values.back();
  while (*last < 0.0 && std::chrono::steady_clock::now() < give_up) {
    group->progress();
  }
  REQUIRE(*last == static_cast<double>(origin(before, kRows - 1, 9)));
  received.wait();
  sent.wait();
  REQUIRE(incoming.values == origin_matrix<double>(before, kRows, 10).values);
}

TEST_CASE("started and plain messages match each other by peer and tag, in order", "[comm][started]") {
  const GroupKind kind = GENERATE(GroupKind::kMpi, GroupKind::kStaged, GroupKind::kDirect, GroupKind::kNccl);
  const TestGroup group(kind, kLimit);
  const int last = group->size() - 1;
  if (last == 0) {
    return;
  }
  if (group->rank() == 0) {
    Placed<float> first(group, origin_matrix<float>(1, 230, 10));
    Placed<float> second(group, origin_matrix<float>(2, 230, 10));
    Placed<float> third(group, origin_matrix<float>(3, 5, 10));
    Pending a = group->start_send(first.view(), last, 4);
    Pending b = group->start_send(second.view(), last, 4);
    group->send(third.view(), last, Communicator::kMaxTag);
    b.wait();
    a.wait();
  } else if (group->rank() == last) {
    Placed<float> first(group, OwnedMatrix<float>(230, 10, -1.0F));
    Placed<float> second(group, OwnedMatrix<float>(230, 10, -1.0F));
    Placed<float> third(group, OwnedMatrix<float>(5, 10, -1.0F));
    Pending c = group->start_receive(third.view(), 0, Communicator::kMaxTag);
    group->receive(first.view(), 0, 4);
    Pending b = group->start_receive(second.view(), 0, 4);
    c.wait();
    b.wait();
    REQUIRE(first.fetched().values == origin_matrix<float>(1, 230, 10).values);
    REQUIRE(second.fetched().values == origin_matrix<float>(2, 230, 10).values);
    REQUIRE(third.fetched().values == origin_matrix<float>(3, 5, 10).values);
  }
}

TEST_CASE("a started receive of another size is an error in its wait, also after progress",
          "[comm][started]") {
  const auto group = MpiCommunicator::over_world();
  if (group->size() == 1) {
    return;
  }
  OwnedMatrix<float> values(3, 10, 0);
  if (group->rank() == 0) {
    group->send(values.view(), 1, 7);
    group->send(values.view(), 1, 7);
    group->send(values.view(), 1, 8);
  } else if (group->rank() == 1) {
    Pending shorter = group->start_receive(values.view().rows(0, 2), 0, 7);
    REQUIRE_THROWS_WITH(shorter.wait(),
                        Catch::Contains("MPI_Irecv failed on rank 1") && Catch::Contains("TRUNCATE"));
    OwnedMatrix<float> larger(4, 10, 0);
    Pending longer = group->start_receive(larger.view(), 0, 7);
    OwnedMatrix<float> whole(3, 10, 0);
    group->receive(whole.view(), 0, 8);  // the other message has come by now
    for (int i = 0; i < 100; ++i) {
      group->progress();
    }
    REQUIRE_THROWS_WITH(longer.wait(), Catch::Contains("received 30 elements from rank 0"));
  }
}

TEST_CASE("started work outlives its communicator and completes when dropped", "[comm][started]") {
  const GroupKind kind = GENERATE(GroupKind::kMpi, GroupKind::kStaged, GroupKind::kDirect, GroupKind::kNccl);
  TestGroup group(kind);
  Placed<double> reduced(group, origin_matrix<double>(0, 40, 10));
  Placed<double> dropped(group, origin_matrix<double>(0, 40, 10));
  const std::int64_t size = group->size();
  Pending pending = group->start_all_reduce(reduced.view());
  { const Pending never_waited = group->start_all_reduce(dropped.view()); }
  REQUIRE(dropped.fetched().at(39, 9) == static_cast<double>(size * origin(0, 39, 9)));
  group.close();
  pending.wait();
  REQUIRE(reduced.fetched().at(39, 9) == static_cast<double>(size * origin(0, 39, 9)));
}

TEST_CASE("traffic of gathers, scatters and started work is counted when it starts", "[comm][traffic]") {
  const GroupKind kind = GENERATE(GroupKind::kMpi, GroupKind::kStaged, GroupKind::kDirect, GroupKind::kNccl);
  const TestGroup group(kind);
  const std::int64_t others = group->size() - 1;
  Placed<float> mine(group, OwnedMatrix<float>(5, 10, 1));
  Placed<float> whole(group, OwnedMatrix<float>(5 * group->size(), 10, 1));
  group->all_gather(mine.view(), whole.view());
  Pending scatter = group->start_reduce_scatter(whole.view(), mine.view());
  Pending reduce = group->start_all_reduce(whole.view());
  const Traffic traffic = group->traffic();
  for (const Collective collective : {Collective::kAllGather, Collective::kReduceScatter}) {
    REQUIRE(traffic[collective].calls == 1);
    REQUIRE(traffic[collective].sent_bytes == 200 * others);
    REQUIRE(traffic[collective].received_bytes == 200 * others);
    if (group.is_mpi()) {
      REQUIRE(traffic[collective].library_calls == 2 * others);
    }
  }
  REQUIRE(traffic[Collective::kAllReduce].calls == 1);
  REQUIRE(traffic[Collective::kAllReduce].sent_bytes == (others > 0 ? 200 * (others + 1) : 0));
  reduce.wait();
  scatter.wait();
  REQUIRE(collective_name(Collective::kAllGather) == "all_gather");
  REQUIRE(collective_name(Collective::kReduceScatter) == "reduce_scatter");
}

TEST_CASE("parts that do not fit are refused before anything is sent", "[comm][errors]") {
  const auto group = MpiCommunicator::over_world();
  const std::int64_t size = group->size();
  OwnedMatrix<float> mine(4, 10, 0);
  OwnedMatrix<float> whole(4 * size, 10, 0);
  OwnedMatrix<float> uneven(4 * size + 1, 10, 0);
  OwnedMatrix<double> other(4 * size, 10, 0);
  OwnedMatrix<std::int32_t> whole_number(4, 10, 0);
  OwnedMatrix<std::int32_t> whole_numbers(4 * size, 10, 0);
  REQUIRE_THROWS_WITH(group->all_gather(mine.view(), uneven.view()), Catch::Contains("parts like"));
  REQUIRE_THROWS_WITH(group->all_gather(mine.view(), other.view()), Catch::Contains("parts like"));
  REQUIRE_THROWS_WITH(group->reduce_scatter(uneven.view(), mine.view()), Catch::Contains("parts like"));
  REQUIRE_THROWS_WITH(group->reduce_scatter(whole_numbers.view(), whole_number.view()),
                      Catch::Contains("can be reduced"));
  const TensorView shifted(uneven.values.data() + group->rank() * 40 + 1, DType::kFloat32, {4, 10});
  const TensorView from_start(uneven.values.data(), DType::kFloat32, {4 * size, 10});
  REQUIRE_THROWS_WITH(group->all_gather(shifted, from_start), Catch::Contains("not this rank's part"));
  REQUIRE_THROWS_WITH(group->start_send(mine.view(), group->rank(), 0), Catch::Contains("with itself"));
  REQUIRE_THROWS_WITH(
      group->all_gather(TensorView(nullptr, DType::kFloat32, {4, 10}, {DeviceKind::kNone, 0}), whole.view()),
      Catch::Contains("not in host memory"));
  REQUIRE(group->traffic().total().calls == 0);
}
