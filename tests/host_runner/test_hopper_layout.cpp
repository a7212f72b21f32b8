// The address arithmetic of the Hopper kernels against the PTX manual's words: swizzle, descriptors,
// fragments; which tiles are visited and in which order; and the protocol of the rings in every order of
// events.
#include <catch2/catch.hpp>
#include <cstdint>
#include <functional>
#include <set>
#include <vector>

#include "host_runner/attention_problem.h"
#include "host_runner/schedules.h"
#include "kernels/cuda/hopper/attention.h"

using namespace caravan;
using namespace caravan::test;
using namespace caravan::cuda::hopper;

TEST_CASE("the swizzle keeps every 16-byte chunk in its row and gives eight rows different banks",
          "[hopper]") {
  for (int chunk = 0; chunk < 8; ++chunk) {
    std::set<unsigned> banks;
    for (int row = 0; row < 8; ++row) {
      const unsigned at = element_offset(8, row, 8 * chunk);
      CHECK(at / 128 == static_cast<unsigned>(row));
      banks.insert(at % 128 / 16);
    }
    CHECK(banks.size() == 8);
  }
  std::set<unsigned> offsets;
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 128; ++column) {
      offsets.insert(element_offset(16, row, column));
    }
  }
  CHECK(offsets.size() == 16 * 128);
  CHECK(*offsets.rbegin() == 16 * 128 * 2 - 2);
}

namespace {

/// What the hardware reads for element (row, k) of an operand, by the manual: rows of 128 bytes in groups of
/// eight; the address is swizzled as a whole.
unsigned hardware_address(std::uint64_t descriptor, bool is_along_rows, int row, int k) {
  const auto field = [&](unsigned begin) {
    return static_cast<unsigned>(descriptor >> begin & 0x3fffU) * 16;
  };
  const auto r = static_cast<unsigned>(row);
  const auto c = static_cast<unsigned>(k);
  const unsigned plain = is_along_rows
                             ? field(0) + r / 64 * field(16) + c / 8 * field(32) + c % 8 * 128 + r % 64 * 2
                             : field(0) + r / 8 * field(32) + r % 8 * 128 + c * 2;
  return plain ^ ((plain / 128 % 8) * 16);
}

}  // namespace

TEST_CASE("descriptors lead to the elements of a tile, along columns and along rows", "[hopper]") {
  constexpr unsigned kBase = 5 * 1024;
  for (const int rows : {64, 128}) {
    for (const int columns : {64, 128}) {
      const std::uint64_t across = along_columns(kBase);
      CHECK(across >> 62U == 1);  // the 128-byte swizzle
      CHECK((across >> 49U & 7U) == 0);
      for (int step = 0; step < columns / 16; ++step) {
        for (int row = 0; row < rows; ++row) {
          for (int k = 0; k < 16; ++k) {
            REQUIRE(hardware_address(across + columns_step(step, rows), false, row, k) ==
                    kBase + element_offset(rows, row, 16 * step + k));
          }
        }
      }
      const std::uint64_t down = along_rows(kBase, rows);
      for (int step = 0; step < rows / 16; ++step) {
        for (int column = 0; column < columns; ++column) {
          for (int k = 0; k < 16; ++k) {
            REQUIRE(hardware_address(down + rows_step(step), true, column, k) ==
                    kBase + element_offset(rows, 16 * step + k, column));
          }
        }
      }
    }
  }
}

TEST_CASE("the threads of a warpgroup hold each element of a product once, and pack it as the next operand",
          "[hopper]") {
  std::set<std::pair<int, int>> elements;
  for (int thread = 0; thread < 128; ++thread) {
    float d[2][4];
    for (int i = 0; i < 2; ++i) {
      for (int j = 0; j < 4; ++j) {
        const int row = accumulator_row(thread, j);
        const int column = accumulator_column(thread, i, j);
        elements.insert({row, column});
        d[i][j] = static_cast<float>(row % 16 * 16 + column);  // exact in bfloat16
      }
    }
    std::uint32_t a[4];
    pack_fragment(a, d, 0);
    for (int i = 0; i < 4; ++i) {  // PTX ISA, "Register fragments for wgmma.mma_async.m64nNk16", matrix A
      const int row = thread % 32 / 4 + i % 2 * 8;
      const int column = thread % 4 * 2 + i / 2 * 8;
      CHECK(to_float(BFloat16{static_cast<std::uint16_t>(a[i])}) == static_cast<float>(row * 16 + column));
      CHECK(to_float(BFloat16{static_cast<std::uint16_t>(a[i] >> 16U)}) ==
            static_cast<float>(row * 16 + column + 1));
    }
  }
  CHECK(elements.size() == 64 * 16);
}

TEST_CASE("key steps visit each seen tile once, those that need the mask first", "[hopper]") {
  for (int seen_begin = 0; seen_begin < 6; ++seen_begin) {
    for (int seen_end = 0; seen_end < 7; ++seen_end) {
      for (int whole_begin = 0; whole_begin < 7; ++whole_begin) {
        for (int whole_end = 0; whole_end < 7; ++whole_end) {
          const KeySteps steps = key_steps(seen_begin, seen_end, whole_begin, whole_end);
          std::set<int> tiles;
          for (int step = 0; step < steps.count(); ++step) {
            const int tile = steps.tile(step);
            CHECK((seen_begin <= tile && tile < seen_end));
            CHECK((step < steps.masked()) == !(whole_begin <= tile && tile < whole_end));
            tiles.insert(tile);
          }
          CHECK(static_cast<int>(tiles.size()) == steps.count());
          CHECK(steps.count() == std::max(0, seen_end - seen_begin));
        }
      }
    }
  }
}

namespace {

void steps_kernel(cuda::AttentionProblem p, KeySteps* steps) {
  const KeySteps found =
      steps_of_tile<128>(p, static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.x) * kBlockRows);
  if (threadIdx.x == 0) {
    steps[blockIdx.y * gridDim.x + blockIdx.x] = found;
  }
}

}  // namespace

TEST_CASE("no tile that a query sees is left out, and in whole tiles every query sees every key",
          "[hopper]") {
  if (host_runner::kThreadSanitizer) {
    return;
  }
  for (const Mask mask :
       {Mask::kCausal, Mask::kDocuments, Mask::kLater, Mask::kBefore, Mask::kBehind, Mask::kZigZag}) {
    for (const std::int64_t key_len : {1, 127, 128, 700}) {
      AttentionCase c{attention_shape(2, 300, key_len, 1, 1, 8), mask};
      c.document_len = 190;
      AttentionTensors tensors(c, DType::kBFloat16);
      const cuda::AttentionProblem p = cuda::attention_problem(c.shape, tensors.mask(), tensors.lse.view());
      std::vector<KeySteps> steps(6);
      cuda::launch("steps", steps_kernel, {.grid = {3, 2}, .block = 32}, p, steps.data());
      int left_out = 0;
      int not_whole = 0;
      for (std::size_t block = 0; block < steps.size(); ++block) {
        const auto row = static_cast<int>(block) / 3;
        for (int i = static_cast<int>(block) % 3 * 128;
             i < std::min(300, static_cast<int>(block) % 3 * 128 + 128); ++i) {
          for (int key = 0; key < p.key_len; ++key) {
            const bool sees = cuda::visible_to(p, row, i).sees(p.key_index[row * p.key_len + key]);
            const KeySteps& s = steps[block];
            const int tile = key / 128;
            left_out += sees && (tile < s.begin || tile >= s.end) ? 1 : 0;
            not_whole += !sees && s.full_begin <= tile && tile < s.full_end ? 1 : 0;
          }
        }
        CHECK((steps[block].full_begin >= steps[block].full_end || steps[block].full_end * 128 <= p.key_len));
      }
      INFO("mask " << static_cast<int>(mask) << ", " << key_len << " keys");
      CHECK(left_out == 0);
      CHECK(not_whole == 0);
      if (mask == Mask::kCausal && key_len == 700) {  // and something is gained
        CHECK(steps[0].count() == 1);
        CHECK(steps[2].count() == 3);
        CHECK(steps[2].masked() == 1);
      }
    }
  }
}

// ---- rings: every order of events of one producer, two consumers and copies that arrive when they will

namespace {

enum class Do : std::uint8_t { kFetch, kWait, kRelease };
struct Action {
  Do what;
  int ring;  // 0 keys, 1 values
  int tile;
};

/// What a barrier counts: arrivals still missing in this phase, and its parity.
struct Phase {
  int missing;
  int parity;
  bool operator<(const Phase& other) const {
    return missing != other.missing ? missing < other.missing : parity < other.parity;
  }
};

struct RingRules {
  int arrivals = 2;                   // that empty a stage: one of each consumer
  std::uint32_t producer_parity = 1;  // xor its place's phase
};

/// Explores all states. "" when every path ends with all tiles read, each unchanged while it is read; else
/// what is wrong.
template <int kStages>
std::string explore(int tiles, bool is_overlapped, const RingRules& rules) {
  std::vector<RingPlace<kStages>> places(static_cast<std::size_t>(tiles));
  for (std::size_t tile = 1; tile < places.size(); ++tile) {
    places[tile] = places[tile - 1];
    places[tile].advance();
  }
  std::vector<Action> producer;
  std::vector<Action> consumer;
  for (int tile = 0; tile < tiles; ++tile) {
    producer.push_back({Do::kFetch, 0, tile});
    producer.push_back({Do::kFetch, 1, tile});
    consumer.push_back({Do::kWait, 0, tile});
    if (is_overlapped && tile > 0) {
      consumer.push_back({Do::kWait, 1, tile - 1});
    }
    consumer.push_back({Do::kRelease, 0, tile});
    if (!is_overlapped) {
      consumer.push_back({Do::kWait, 1, tile});
      consumer.push_back({Do::kRelease, 1, tile});
    } else if (tile > 0) {
      consumer.push_back({Do::kRelease, 1, tile - 1});
    }
  }
  if (is_overlapped) {
    consumer.push_back({Do::kWait, 1, tiles - 1});
    consumer.push_back({Do::kRelease, 1, tiles - 1});
  }

  struct State {
    std::vector<int> at = {0, 0, 0};  // next action of producer and consumers
    std::vector<int> held =
        std::vector<int>(2 * kStages, -1);  // tile of each buffer; −1 none, −2 − t on its way
    std::vector<Phase> full = std::vector<Phase>(2 * kStages, Phase{1, 0});
    std::vector<Phase> empty;
    bool operator<(const State& other) const {
      return std::tie(at, held, full, empty) < std::tie(other.at, other.held, other.full, other.empty);
    }
  };
  const auto buffer = [&](const Action& action) {
    return static_cast<std::size_t>(action.ring) * kStages +
           static_cast<std::size_t>(places[static_cast<std::size_t>(action.tile)].stage);
  };
  const auto phase = [&](const Action& action) {
    return places[static_cast<std::size_t>(action.tile)].phase;
  };
  const auto arrive = [](Phase& barrier, int arrivals) {
    if (--barrier.missing == 0) {
      barrier = {arrivals, 1 - barrier.parity};
    }
  };

  std::set<State> seen;
  State start;
  start.empty.assign(2 * kStages, Phase{rules.arrivals, 0});
  std::vector<State> open = {start};
  while (!open.empty()) {
    const State state = open.back();
    open.pop_back();
    if (!seen.insert(state).second) {
      continue;
    }
    bool goes_on = false;
    bool is_done = true;
    for (std::size_t role = 0; role < 3; ++role) {
      const std::vector<Action>& program = role == 0 ? producer : consumer;
      if (state.at[role] == static_cast<int>(program.size())) {
        continue;
      }
      is_done = false;
      const Action& action = program[static_cast<std::size_t>(state.at[role])];
      const std::size_t b = buffer(action);
      State next = state;
      ++next.at[role];
      switch (action.what) {
        case Do::kFetch:
          if (state.empty[b].parity == static_cast<int>(phase(action) ^ rules.producer_parity)) {
            continue;  // waits
          }
          next.held[b] = -2 - action.tile;
          break;
        case Do::kWait:
          if (state.full[b].parity == static_cast<int>(phase(action))) {
            continue;
          }
          if (state.held[b] != action.tile) {
            return "reads another tile";
          }
          break;
        case Do::kRelease:
          if (state.held[b] != action.tile) {
            return "overwritten while it was read";
          }
          arrive(next.empty[b], rules.arrivals);
          break;
      }
      goes_on = true;
      open.push_back(next);
    }
    for (std::size_t b = 0; b < state.held.size(); ++b) {
      if (state.held[b] <= -2) {  // the copy arrives
        State next = state;
        next.held[b] = -2 - state.held[b];
        arrive(next.full[b], 1);
        goes_on = true;
        open.push_back(next);
      }
    }
    if (!goes_on && !is_done) {
      return "nobody can go on";
    }
  }
  return "";
}

template <int kStages>
void check_rings() {
  for (int tiles = 1; tiles <= 6; ++tiles) {
    for (const bool is_overlapped : {false, true}) {
      INFO(kStages << " stages, " << tiles << " tiles, overlapped " << is_overlapped);
      CHECK(explore<kStages>(tiles, is_overlapped, {}).empty());
    }
  }
}

}  // namespace

TEST_CASE("rings of one to four stages neither stop nor overwrite what is read, in any order of events",
          "[hopper]") {
  check_rings<1>();
  check_rings<2>();
  check_rings<3>();
  check_rings<4>();
}

TEST_CASE(
    "the exploration sees a ring whose producer waits for the wrong phase, and one that empties too early",
    "[hopper]") {
  CHECK(explore<2>(4, true, {.producer_parity = 0}) == "nobody can go on");
  CHECK_FALSE(explore<2>(4, false, {.arrivals = 1}).empty());
  CHECK(explore<2>(4, true, {.arrivals = 3}) == "nobody can go on");
}
