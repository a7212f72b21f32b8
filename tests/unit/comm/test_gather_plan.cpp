#include "src/comm/gather_plan.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <numeric>

using namespace caravan;
using namespace caravan::detail;

namespace {

struct Fixture {
  std::vector<float> memory = std::vector<float>(100000);
  TensorView part(std::int64_t begin, std::int64_t count) {
    return TensorView(memory.data() + begin, DType::kFloat32, {count});
  }
};

/// Plays the calls: which rank writes each element of the memory (-1: none), its position in the rank's part.
struct Played {
  std::vector<int> writer;
  std::vector<std::int64_t> position;
};

Played play(const std::vector<float>& memory, const std::vector<GatherCall>& calls, std::int64_t max_count) {
  Played played{std::vector<int>(memory.size(), -1), std::vector<std::int64_t>(memory.size(), -1)};
  std::vector<std::int64_t> sent(calls.empty() ? 0 : calls[0].counts.size(), 0);
  for (const GatherCall& call : calls) {
    const std::int64_t base = reinterpret_cast<const float*>(call.base) - memory.data();
    for (std::size_t r = 0; r < call.counts.size(); ++r) {
      REQUIRE(call.displacements[r] + call.counts[r] <= max_count);
      for (int i = 0; i < call.counts[r]; ++i) {
        const auto at = static_cast<std::size_t>(base + call.displacements[r] + i);
        REQUIRE(played.writer[at] == -1);
        played.writer[at] = static_cast<int>(r);
        played.position[at] = sent[r]++;
      }
    }
  }
  return played;
}

void require_covers(const Played& played, const std::vector<float>& memory,
                    const std::vector<TensorView>& parts, int root) {
  std::vector<int> writer(memory.size(), -1);
  for (std::size_t r = 0; r < parts.size(); ++r) {
    const std::int64_t begin = parts[r].data<float>() - memory.data();
    for (std::int64_t i = 0; static_cast<int>(r) != root && i < parts[r].numel(); ++i) {
      writer[static_cast<std::size_t>(begin + i)] = static_cast<int>(r);
      REQUIRE(played.position[static_cast<std::size_t>(begin + i)] == i);
    }
  }
  REQUIRE(played.writer == writer);
}

}  // namespace

TEST_CASE_METHOD(Fixture, "parts within the limit make one call from their lowest address", "[comm][plan]") {
  const std::vector<TensorView> parts = {part(500, 100), part(0, 300), part(300, 150), part(900, 1)};
  const auto calls = plan_gather_calls(parts, 0, 901);
  REQUIRE(calls.size() == 1);
  REQUIRE(calls[0].base == static_cast<char*>(parts[1].raw()));
  REQUIRE(calls[0].counts == std::vector<int>{0, 300, 150, 1});
  REQUIRE(calls[0].displacements == std::vector<int>{0, 0, 300, 900});
  REQUIRE(plan_gather_calls(parts, 0, 900).size() == 2);
}

TEST_CASE_METHOD(Fixture, "any layout is covered once, in order, within any limit", "[comm][plan]") {
  const std::vector<TensorView> parts = {part(4000, 1000), part(9000, 2500), part(100, 0),
                                         part(0, 3999),    part(20000, 1),   part(20001, 700)};
  for (const std::int64_t max_count : {1, 7, 999, 1000, 2500, 21000}) {
    for (int root = 0; root < 6; ++root) {
      const auto calls = plan_gather_calls(parts, root, max_count);
      require_covers(play(memory, calls, max_count), memory, parts, root);
    }
  }
}

TEST_CASE_METHOD(Fixture, "root's own part and empty parts make no calls", "[comm][plan]") {
  REQUIRE(plan_gather_calls(std::vector<TensorView>{part(0, 50)}, 0, 10).empty());
  REQUIRE(plan_gather_calls(std::vector<TensorView>{part(0, 50), part(50, 0)}, 0, 10).empty());
}

TEST_CASE("addresses that are not whole elements apart go into separate calls", "[comm][plan]") {
  std::vector<char> memory(64);
  const std::vector<TensorView> parts = {TensorView(memory.data(), DType::kFloat32, {0}),
                                         TensorView(memory.data() + 4, DType::kFloat32, {2}),
                                         TensorView(memory.data() + 14, DType::kFloat32, {2})};
  const auto calls = plan_gather_calls(parts, 0, 1000);
  REQUIRE(calls.size() == 2);
  REQUIRE(calls[1].base == memory.data() + 14);
}

TEST_CASE_METHOD(Fixture, "overlapping parts go into separate calls", "[comm][plan]") {
  const std::vector<TensorView> parts = {part(0, 0), part(0, 10), part(5, 10), part(5, 10)};
  REQUIRE(plan_gather_calls(parts, 0, 1000).size() == 3);
}
