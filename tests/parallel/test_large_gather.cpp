// RANKS 3
// A destination of 2.2 GB on root, so that a displacement really exceeds 2^31 bytes (and, seen as bytes, 2^31
// elements); everything else about gatherv is tested with small limits in test_gather.cpp. Cheap all the
// same: only the pages that are written become resident.
#include <catch2/catch.hpp>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <vector>

#include "caravan/comm/communicator.h"
#include "caravan/comm/mpi_communicator.h"
#include "support/shared_files.h"

using namespace caravan;

namespace {

constexpr std::int64_t kBorder = std::int64_t{1} << 31;
constexpr std::int64_t kPartBytes = 40'000'000;  // of rank 1 at the start, of rank 2 behind the border
constexpr std::int64_t kBehindBegin = kBorder + 8 * 13;  // rank 2's part
constexpr std::int64_t kTotal = kBehindBegin + kPartBytes + 8;

/// Differs between ranks and has no period that is a power of two.
std::uint8_t pattern(int rank, std::int64_t position) {
  const auto seed = static_cast<std::uint64_t>(position) * 3 + static_cast<std::uint64_t>(rank);
  return static_cast<std::uint8_t>((seed * 0x9E3779B97F4A7C15U) >> 56U);
}

std::int64_t count_wrong(const std::uint8_t* bytes, int rank) {
  std::int64_t wrong = 0;
  for (std::int64_t i = 0; i < kPartBytes; ++i) {
    wrong += bytes[i] == pattern(rank, i) ? 0 : 1;
  }
  return wrong;
}

struct FreeMemory {
  void operator()(std::uint8_t* memory) const { std::free(memory); }
};

/// Ranks 1 and 2 gather into root's tensor of `dtype` and get their parts back; root's own part is the
/// middle.
void check_beyond_border(DType dtype, std::int64_t expected_calls) {
  const auto group = MpiCommunicator::over_world();
  const bool is_root = group->rank() == 0;
  const auto element = static_cast<std::int64_t>(dtype_bytes(dtype));
  std::unique_ptr<std::uint8_t, FreeMemory> memory;
  if (is_root) {
    memory.reset(static_cast<std::uint8_t*>(std::calloc(static_cast<std::size_t>(kTotal), 1)));
  }
  const bool is_refused = is_root && memory == nullptr;
  if (group->all_reduce_value(std::int64_t{is_refused}, ReduceOp::kMax) == 1) {
    if (is_root) {
      caravan::test::something_was_skipped() = true;
      std::cout << "SKIPPED: the system gives no 2.2 GB of address space\n";
    }
    return;
  }
  std::vector<std::uint8_t> bytes(is_root ? 0 : static_cast<std::size_t>(kPartBytes));
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = pattern(group->rank(), static_cast<std::int64_t>(i));
  }
  TensorView mine(bytes.data(), dtype, {std::ssize(bytes) / element});
  std::vector<TensorView> parts;
  if (is_root) {
    const TensorView whole(memory.get(), dtype, {kTotal / element});
    parts = {whole.rows(kPartBytes / element, kBehindBegin / element), whole.rows(0, kPartBytes / element),
             whole.rows(kBehindBegin / element, (kBehindBegin + kPartBytes) / element)};
    mine = parts[0];
  }
  group->gatherv(mine, parts, 0);
  REQUIRE(group->traffic()[Collective::kGatherv].library_calls == expected_calls);
  if (is_root) {
    REQUIRE(count_wrong(memory.get(), 1) == 0);
    REQUIRE(count_wrong(memory.get() + kBehindBegin, 2) == 0);
    REQUIRE(memory.get()[kPartBytes] == 0);
    REQUIRE(memory.get()[kBehindBegin - 1] == 0);
    REQUIRE(memory.get()[kBehindBegin + kPartBytes] == 0);
  }
  std::fill(bytes.begin(), bytes.end(), std::uint8_t{0});
  group->scatterv(parts, mine, 0);
  REQUIRE(group->traffic()[Collective::kScatterv].library_calls == expected_calls);
  if (!is_root) {
    REQUIRE(count_wrong(bytes.data(), group->rank()) == 0);
  }
}

}  // namespace

TEST_CASE("a displacement beyond 2^31 bytes travels in one call of wider elements", "[comm][gatherv]") {
  check_beyond_border(DType::kFloat32, 1);
  check_beyond_border(DType::kFloat64, 1);
}

TEST_CASE("a displacement beyond 2^31 elements is cut into two calls", "[comm][gatherv]") {
  check_beyond_border(DType::kUInt8, 2);
}
