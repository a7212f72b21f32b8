// RANKS 1 2 4
// gatherv and scatterv of every kind of group: uneven, empty and permuted parts, once with MPI's own limit
// and once with calls that span at most 1000 elements.
#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "caravan/comm/communicator.h"
#include "caravan/comm/mpi_communicator.h"
#include "caravan/core/error.h"
#include "tests/support/group_kinds.h"
#include "tests/support/origin_data.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr std::int64_t kCols = 10;
constexpr std::int64_t kLimit = 1000;

using RowsOfRank = std::function<std::int64_t(int rank)>;
using SlotOfRank = std::function<int(int rank)>;

/// One tensor on root, cut by rows: slot after slot, each as long as the rank that holds it says.
struct Layout {
  Layout(int size, const RowsOfRank& rows_of, const SlotOfRank& slot_of)
      : begin(static_cast<std::size_t>(size)) {
    rows.resize(begin.size());
    for (int slot = 0; slot < size; ++slot) {
      for (int rank = 0; rank < size; ++rank) {
        if (slot_of(rank) == slot) {
          begin[static_cast<std::size_t>(rank)] = total;
          rows[static_cast<std::size_t>(rank)] = rows_of(rank);
          total += rows_of(rank);
        }
      }
    }
  }
  std::vector<TensorView> cut(const TensorView& whole) const {
    std::vector<TensorView> parts;
    for (std::size_t r = 0; r < rows.size(); ++r) {
      parts.push_back(whole.rows(begin[r], begin[r] + rows[r]));
    }
    return parts;
  }
  std::int64_t rows_of(int rank) const { return rows[static_cast<std::size_t>(rank)]; }

  std::vector<std::int64_t> begin;
  std::vector<std::int64_t> rows;
  std::int64_t total = 0;
};

void require_assembled(OwnedMatrix<float>& whole, const Layout& layout) {
  for (std::size_t r = 0; r < layout.rows.size(); ++r) {
    for (std::int64_t row = 0; row < layout.rows[r]; ++row) {
      for (std::int64_t col = 0; col < kCols; ++col) {
        REQUIRE(whole.at(layout.begin[r] + row, col) ==
                static_cast<float>(origin(static_cast<std::int64_t>(r), row, col)));
      }
    }
  }
}

/// Gathers the layout on every root in turn, then scatters it back.
void check_round_trip(const TestGroup& group, const RowsOfRank& rows_of, const SlotOfRank& slot_of) {
  INFO(name_of(group.kind()));
  const Layout layout(group->size(), rows_of, slot_of);
  for (int root = 0; root < group->size(); ++root) {
    const bool is_root = group->rank() == root;
    Placed<float> whole(group, OwnedMatrix<float>(is_root ? layout.total : 0, kCols, -1.0F));
    const auto parts = is_root ? layout.cut(whole.view()) : std::vector<TensorView>();
    auto origins = origin_matrix<float>(group->rank(), layout.rows_of(group->rank()), kCols);
    Placed<float> mine(group, origins);
    group->gatherv(mine.view(), parts, root);
    if (is_root) {
      require_assembled(whole.fetched(), layout);
    }
    Placed<float> back(group, OwnedMatrix<float>(origins.rows, kCols, -2.0F));
    group->scatterv(parts, back.view(), root);
    REQUIRE(back.fetched().values == origins.values);
  }
}

void check_gaps(GroupKind kind, std::int64_t limit) {
  INFO(name_of(kind));
  const TestGroup group(kind, limit);
  const bool is_root = group->rank() == 0;
  constexpr std::int64_t kRows = 30;
  constexpr std::int64_t kStep = 40;  // ten rows of gap behind each part
  auto origins = origin_matrix<float>(group->rank(), kRows, kCols);
  OwnedMatrix<float> start(is_root ? kStep * group->size() : 0, kCols, -7.0F);
  if (is_root) {
    std::copy(origins.values.begin(), origins.values.end(), start.values.begin());
  }
  Placed<float> whole(group, start);
  Placed<float> separate(group, origins);
  std::vector<TensorView> parts;
  for (std::int64_t r = 0; is_root && r < group->size(); ++r) {
    parts.push_back(whole.view().rows(r * kStep, r * kStep + kRows));
  }
  group->gatherv(is_root ? parts[0] : separate.view(), parts, 0);
  OwnedMatrix<float>& result = whole.fetched();
  for (std::int64_t row = 0; row < result.rows; ++row) {
    const std::int64_t in_part = row % kStep;
    for (std::int64_t col = 0; col < kCols; ++col) {
      const float wanted = in_part < kRows ? static_cast<float>(origin(row / kStep, in_part, col)) : -7.0F;
      REQUIRE(result.at(row, col) == wanted);
    }
  }
  group->scatterv(parts, is_root ? parts[0] : separate.view(), 0);
  REQUIRE((is_root ? whole.fetched().at(3, 4) : separate.fetched().at(3, 4)) ==
          static_cast<float>(origin(group->rank(), 3, 4)));
}

}  // namespace

TEST_CASE("uneven parts of one tensor travel in a single MPI call when they fit", "[comm][gatherv]") {
  for (const GroupKind kind : kGroupKinds) {
    const TestGroup group(kind);
    check_round_trip(
        group, [](int rank) { return 5 + 70 * rank; }, [](int rank) { return rank; });
    const std::int64_t each =
        group->size() > 1 ? group->size() : 0;  // one per root; alone there is nothing to send
    if (group.is_mpi()) {
      REQUIRE(group->traffic()[Collective::kGatherv].library_calls == each);
      REQUIRE(group->traffic()[Collective::kScatterv].library_calls == each);
    }
  }
}

TEST_CASE("parts that exceed the limit together travel in several calls", "[comm][gatherv]") {
  for (const GroupKind kind : kGroupKinds) {
    const TestGroup group(kind, kLimit);
    check_round_trip(
        group, [](int /*rank*/) { return 80; }, [](int rank) { return rank; });
    if (group.is_mpi() && group->size() == 4) {
      // 800 elements each: the window of 1000 holds one part at a time, three parts travel to each of four
      // roots.
      REQUIRE(group->traffic()[Collective::kGatherv].library_calls == 12);
    }
  }
}

TEST_CASE("a part that exceeds the limit alone is cut, beside small and empty ones", "[comm][gatherv]") {
  for (const GroupKind kind : kGroupKinds) {
    const TestGroup group(kind, kLimit);
    check_round_trip(
        group, [](int rank) { return rank == 1   ? 321
                                     : rank == 2 ? 0
                                                 : 7 + rank; },
        [](int rank) { return rank; });
  }
}

TEST_CASE("ranks may hold any slot: a rank's part need not lie in rank order", "[comm][gatherv]") {
  for (const GroupKind kind : kGroupKinds) {
    for (const std::int64_t limit : {MpiCommunicator::kMaxCount, kLimit}) {
      const TestGroup group(kind, limit);
      const int size = group->size();
      for (int round = 0; round < size; ++round) {
        check_round_trip(
            group, [](int rank) { return 150 - 40 * rank; },
            [size, round](int rank) { return (rank + round) % size; });
        check_round_trip(
            group, [](int rank) { return 3 * rank; }, [size](int rank) { return size - 1 - rank; });
      }
    }
  }
}

TEST_CASE("nothing at all can be gathered", "[comm][gatherv]") {
  for (const GroupKind kind : kGroupKinds) {
    const TestGroup group(kind);
    check_round_trip(
        group, [](int /*rank*/) { return 0; }, [](int rank) { return rank; });
    REQUIRE(group->traffic()[Collective::kGatherv].library_calls == 0);
  }
}

TEST_CASE("root's part may be its destination, and what lies between parts is left alone",
          "[comm][gatherv]") {
  for (const GroupKind kind : kGroupKinds) {
    check_gaps(kind, MpiCommunicator::kMaxCount);
    check_gaps(kind, kLimit);
  }
}

TEST_CASE("parts may lie on the host and on the device at once", "[comm][gatherv]") {
  const TestGroup group(GroupKind::kStaged, kLimit);
  const bool is_root = group->rank() == 0;
  const auto place_of = [&](std::int64_t rank) { return rank % 2 == 0 ? group.device() : nullptr; };
  std::deque<Placed<float>> owners;
  std::vector<TensorView> parts;
  for (std::int64_t r = 0; is_root && r < group->size(); ++r) {
    owners.emplace_back(place_of(r + 1), OwnedMatrix<float>(30 + r, kCols, -1.0F));
    parts.push_back(owners.back().view());
  }
  auto origins = origin_matrix<float>(group->rank(), 30 + group->rank(), kCols);
  Placed<float> mine(place_of(group->rank()), origins);
  group->gatherv(mine.view(), parts, 0);
  for (std::size_t r = 0; r < owners.size(); ++r) {
    const auto rank = static_cast<std::int64_t>(r);
    REQUIRE(owners[r].fetched().values == origin_matrix<float>(rank, 30 + rank, kCols).values);
  }
  Placed<float> back(place_of(group->rank()), OwnedMatrix<float>(30 + group->rank(), kCols, -2.0F));
  group->scatterv(parts, back.view(), 0);
  REQUIRE(back.fetched().values == origins.values);
}

TEST_CASE("parts may be tensors of their own", "[comm][gatherv]") {
  for (const GroupKind kind : kGroupKinds) {
    INFO(name_of(kind));
    const TestGroup group(kind, kLimit);
    const bool is_root = group->rank() == 0;
    std::deque<Placed<double>> tensors;
    std::vector<TensorView> parts;
    for (std::int64_t r = 0; is_root && r < group->size(); ++r) {
      tensors.emplace_back(group, OwnedMatrix<double>(r + 2, kCols, -1.0));
      parts.push_back(tensors.back().view().reshape({kCols, r + 2}));  // only elements and dtype must agree
    }
    Placed<double> mine(group, origin_matrix<double>(group->rank(), group->rank() + 2, kCols));
    group->gatherv(mine.view(), parts, 0);
    for (std::size_t r = 0; r < tensors.size(); ++r) {
      const auto rank = static_cast<std::int64_t>(r);
      REQUIRE(tensors[r].fetched().values == origin_matrix<double>(rank, rank + 2, kCols).values);
    }
  }
}

TEST_CASE("scatterv may hand the same rows to several ranks", "[comm][scatterv]") {
  for (const GroupKind kind : kGroupKinds) {
    INFO(name_of(kind));
    const TestGroup group(kind);
    const bool is_root = group->rank() == 0;
    Placed<float> whole(group, origin_matrix<float>(9, 20, kCols));
    std::vector<TensorView> parts;
    for (std::int64_t r = 0; is_root && r < group->size(); ++r) {
      parts.push_back(whole.view().rows(r, r + 12));
    }
    Placed<float> mine(group, OwnedMatrix<float>(12, kCols, -1.0F));
    group->scatterv(parts, mine.view(), 0);
    OwnedMatrix<float>& result = mine.fetched();
    for (std::int64_t row = 0; row < 12; ++row) {
      REQUIRE(result.at(row, 3) == static_cast<float>(origin(9, group->rank() + row, 3)));
    }
  }
}

TEST_CASE("gathering counts what travelled", "[comm][gatherv][traffic]") {
  for (const GroupKind kind : kGroupKinds) {
    const TestGroup group(kind, kLimit);
    const std::int64_t size = group->size();
    check_round_trip(
        group, [](int /*rank*/) { return 30; }, [](int rank) { return rank; });
    for (const Collective one : {Collective::kGatherv, Collective::kScatterv}) {
      REQUIRE(group->traffic()[one].calls == size);
      REQUIRE(group->traffic()[one].sent_bytes == (size - 1) * 30 * kCols * 4);  // to, or as, each root once
      REQUIRE(group->traffic()[one].received_bytes == (size - 1) * 30 * kCols * 4);
    }
  }
}

TEST_CASE("when ranks disagree about sizes or types, all of them learn who is wrong", "[comm][errors]") {
  const GroupKind kind = GENERATE(GroupKind::kMpi, GroupKind::kStaged, GroupKind::kDirect, GroupKind::kNccl);
  const TestGroup group(kind);
  if (group->size() == 1) {
    return;  // one rank's disagreement with itself is found by the checks below
  }
  const bool is_root = group->rank() == 0;
  const int last = group->size() - 1;
  Placed<float> whole(group, OwnedMatrix<float>(group->size() * 2, kCols, 0.0F));
  std::vector<TensorView> parts;
  for (std::int64_t r = 0; is_root && r < group->size(); ++r) {
    parts.push_back(whole.view().rows(2 * r, 2 * r + 2));
  }
  Placed<float> mine(group, OwnedMatrix<float>(group->rank() == last ? 3 : 2, kCols, 0.0F));
  const std::string wrong_size =
      fmt::format("rank {} has 30 elements of float32, root 0 expects 20 of float32", last);
  REQUIRE_THROWS_AS(group->gatherv(mine.view(), parts, 0), CommError);
  REQUIRE_THROWS_WITH(group->gatherv(mine.view(), parts, 0), Catch::Contains("gatherv: " + wrong_size));
  REQUIRE_THROWS_WITH(group->scatterv(parts, mine.view(), 0), Catch::Contains("scatterv: " + wrong_size));

  Placed<float> floats(group, OwnedMatrix<float>(2, kCols, 0.0F));
  Placed<std::int32_t> integers(group, OwnedMatrix<std::int32_t>(2, kCols, 0));
  REQUIRE_THROWS_WITH(group->gatherv(group->rank() == last ? integers.view() : floats.view(), parts, 0),
                      Catch::Contains("20 elements of int32") && Catch::Contains("20 of float32"));
  // Nothing is out of step afterwards.
  group->gatherv(floats.view(), parts, 0);
}

TEST_CASE("root's own mistakes are found before anything is sent", "[comm][errors]") {
  const auto group = MpiCommunicator::over_world();
  if (group->rank() != 0) {
    return;
  }
  const std::int64_t size = group->size();
  OwnedMatrix<float> whole(size * 2 + 1, kCols, 0.0F);
  OwnedMatrix<float> mine(2, kCols, 0.0F);
  std::vector<TensorView> parts(static_cast<std::size_t>(size + 1), whole.view().rows(0, 2));
  REQUIRE_THROWS_WITH(group->gatherv(mine.view(), parts, 0), Catch::Contains("parts for"));
  parts.pop_back();
  if (size > 1) {
    REQUIRE_THROWS_WITH(group->gatherv(mine.view(), parts, 0), Catch::Contains("overlap on the root"));
  }
  OwnedMatrix<double> doubles(2, kCols, 0.0);
  REQUIRE_THROWS_WITH(group->scatterv(parts, doubles.view(), 0),
                      Catch::Contains("float32[2, 10] beside float64[2, 10]"));
  REQUIRE_THROWS_WITH(group->scatterv(parts, whole.view(), 0), Catch::Contains("the root's own part"));
}
