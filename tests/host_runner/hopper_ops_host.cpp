// The host forms of kernels/cuda/hopper/ops.h: barriers with phases, bulk copies and warpgroup products, each
// as early or as late as the rules allow, so that what is read too soon is NaN and what is overwritten too
// soon is noticed. Layouts and descriptors are taken apart here by the PTX manual, independently of layout.h,
// which puts them together.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "host_runner/runner.h"
#include "host_runner/sanitizers.h"
#include "kernels/cuda/hopper/ops.h"

namespace caravan::cuda::hopper {

using host_runner::fail_thread;
using host_runner::runner;
using host_runner::RunnerWork;
using host_runner::Site;

namespace {

// ---- barriers

/// The 64 bits of a barrier, whose layout CUDA does not tell either.
struct BarrierState {
  std::int32_t bytes;          // still to come in this phase
  std::uint16_t arrivals;      // of a phase
  std::uint16_t pending : 15;  // still to come in this phase
  std::uint16_t phase : 1;
};
static_assert(sizeof(BarrierState) == sizeof(Barrier));

BarrierState load(const Barrier* barrier) {
  BarrierState state{};
  std::memcpy(&state, barrier, sizeof(state));
  return state;
}

/// Ends the phase when nothing is missing, and wakes who waits for it.
void store(Barrier* barrier, BarrierState state) {
  if (state.pending == 0 && state.bytes == 0) {
    state.pending = state.arrivals & 0x7fffU;
    state.phase ^= 1U;
  }
  std::memcpy(barrier, &state, sizeof(state));
  runner().wake();
}

// ---- bulk copies

struct MapFields {
  HeadTensor tensor;
  std::int64_t rows;
};

struct BulkCopy {
  unsigned char* shared;
  MapFields map;
  Barrier* barrier;  // null: a store
  BoxPlace at;
};

/// Of the block that is running.
struct BlockState {
  std::uint64_t number = 0;
  unsigned char* tiles = nullptr;  // the first byte that is aligned to kTileAlignment
  std::vector<BulkCopy> loads{};
  std::array<int, 16> arrived{};  // at named barriers
  std::array<std::uint64_t, 16> opened{};
};
BlockState block;

constexpr unsigned kFirstTile = 3 * kTileAlignment;  // where tiles begin, as an address of shared memory

/// Byte of shared memory at an address, exchanged as the 128-byte swizzle says: bits 4 to 6 by bits 7 to 9.
unsigned char* swizzled_byte(unsigned address) {
  const unsigned exchanged = address ^ ((address >> 7U & 7U) << 4U);
  return block.tiles + (exchanged - kFirstTile);
}

/// Element (row, column) of a box in shared memory that begins at `shared`.
unsigned char* box_element(unsigned char* shared, std::int64_t row, std::int64_t column) {
  return swizzled_byte(shared_address(shared) + static_cast<unsigned>(row * 128 + column * 2));
}

/// Element (token, column) of a box in the tensor; null where it is outside.
BFloat16* tensor_element(const BulkCopy& copy, std::int64_t row, std::int64_t column) {
  const HeadTensor& x = copy.map.tensor;
  const std::int64_t e = copy.at.column + column;
  const std::int64_t token = copy.at.token + row;
  const std::int64_t head = copy.at.head;
  const std::int64_t batch_row = copy.at.row;
  if (e < 0 || e >= x.head_dim || token < 0 || token >= x.tokens || head < 0 || head >= x.heads ||
      batch_row < 0 || batch_row >= x.batch) {
    return nullptr;
  }
  auto* data = static_cast<BFloat16*>(const_cast<void*>(x.data));
  return data + ((batch_row * x.tokens + token) * x.heads + head) * x.head_dim + e;
}

template <class Body>
void for_each_element(const BulkCopy& copy, const Body& body) {
  for (std::int64_t row = 0; row < copy.map.rows; ++row) {
    for (std::int64_t column = 0; column < 64; ++column) {
      body(box_element(copy.shared, row, column), tensor_element(copy, row, column));
    }
  }
}

void arrive(const BulkCopy& copy) {
  const RunnerWork work;
  for_each_element(copy, [](unsigned char* shared, const BFloat16* element) {
    const BFloat16 value = element == nullptr ? BFloat16{} : *element;
    std::memcpy(shared, &value, sizeof(value));
  });
  BarrierState state = load(copy.barrier);
  state.bytes -= static_cast<std::int32_t>(copy.map.rows * 128);
  store(copy.barrier, state);
}

/// The copy unit: one of the copies on their way arrives, the schedule says which.
bool deliver_one() {
  if (block.loads.empty()) {
    return false;
  }
  const std::size_t which = runner().draw(block.loads.size());
  const BulkCopy copy = block.loads[which];
  block.loads.erase(block.loads.begin() + static_cast<std::ptrdiff_t>(which));
  arrive(copy);
  return true;
}

// NOLINTNEXTLINE(readability-non-const-parameter): its arrival writes
BulkCopy copy_of(unsigned char* shared, const TensorMap& map, Barrier* barrier, const BoxPlace& at,
                 Site site) {
  BulkCopy copy{shared, {}, barrier, at};
  std::memcpy(&copy.map, map.words, sizeof(copy.map));
  if (shared_address(shared) % kTileAlignment != 0) {
    fail_thread("a bulk copy of a box that is not aligned to 1024 bytes", site);
  }
  return copy;
}

// ---- products

struct Product {
  float* d;
  int blocks;
  std::array<std::array<float, 4>, 16> result;  // of d, whose registers are NaN until then
  int group;
};
struct Operand {
  const std::uint32_t* registers;
  std::array<std::uint32_t, 4> values;
  int group;
};
struct SharedOperand {
  std::uint64_t descriptor;
  int rows;  // of the operand that are read: this warp's of a, all of b
  int first_row;
  bool is_along_rows;
  std::uint64_t checksum;
  int group;
};

/// Products of one thread on their way. What a warp has in common is kept by its first lane.
struct ThreadProducts {
  std::vector<Product> products{};
  std::vector<Operand> operands{};
  std::vector<SharedOperand> shared{};
  int group = 0;  // number of the group that the next commit closes
  bool is_fenced = false;
};
std::array<ThreadProducts, 1024> threads;

ThreadProducts& mine() {
  return threads[static_cast<std::size_t>(runner().current().index)];
}

/// Element (row, k) of an operand; row counts along the product's rows or columns, k along the contraction.
unsigned char* operand_byte(std::uint64_t descriptor, bool is_along_rows, int row, int k) {
  const auto field = [&](unsigned begin) { return static_cast<int>((descriptor >> begin & 0x3fffU) << 4U); };
  const int address = field(0);
  const int leading = field(16);
  const int stride = field(32);
  const int at = is_along_rows ? address + row / 64 * leading + k / 8 * stride + k % 8 * 128 + row % 64 * 2
                               : address + row / 8 * stride + row % 8 * 128 + k * 2;
  return swizzled_byte(static_cast<unsigned>(at));
}

float operand_element(std::uint64_t descriptor, bool is_along_rows, int row, int k) {
  BFloat16 value;
  std::memcpy(&value, operand_byte(descriptor, is_along_rows, row, k), sizeof(value));
  return to_float(value);
}

std::uint64_t checksum(const SharedOperand& operand) {
  std::uint64_t sum = 1469598103934665603U;  // FNV-1a
  for (int row = 0; row < operand.rows; ++row) {
    for (int k = 0; k < 16; ++k) {
      std::uint16_t bits = 0;
      std::memcpy(&bits, operand_byte(operand.descriptor, operand.is_along_rows, operand.first_row + row, k),
                  sizeof(bits));
      sum = (sum ^ bits) * 1099511628211U;
    }
  }
  return sum;
}

void note_shared(std::uint64_t descriptor, int rows, int first_row, bool is_along_rows) {
  ThreadProducts& thread = mine();
  SharedOperand operand{descriptor, rows, first_row, is_along_rows, 0, thread.group};
  operand.checksum = checksum(operand);
  thread.shared.push_back(operand);
}

/// d's result so far: what d holds, or what is on its way to it.
Product& product_on(float* d, int blocks, bool accumulate) {
  ThreadProducts& thread = mine();
  const auto found = std::find_if(thread.products.begin(), thread.products.end(),
                                  [&](const Product& product) { return product.d == d; });
  const bool is_first = found == thread.products.end();
  Product& product = is_first ? thread.products.emplace_back() : *found;
  if (is_first) {
    product.d = d;
    product.blocks = blocks;
    std::memcpy(product.result.data(), d, sizeof(float) * 4 * static_cast<std::size_t>(blocks));
    std::fill_n(d, 4 * blocks, std::nanf(""));
  }
  if (!accumulate) {
    product.result = {};
  }
  product.group = thread.group;
  return product;
}

struct Fragments {
  const std::uint32_t* a;                     // null: from shared memory
  std::array<std::array<float, 16>, 2> rows;  // the lane's two rows of a
};

/// Lane 4 · group + member holds rows group and group + 8, columns 2 · member, +1 and 8 further.
void share_fragments(void* const (&payloads)[32], unsigned /*mask*/) {
  for (unsigned lane = 0; lane < 32; ++lane) {
    auto& own = *static_cast<Fragments*>(payloads[lane]);
    for (unsigned member = 0; member < 4 && own.a != nullptr; ++member) {
      const std::uint32_t* a = static_cast<const Fragments*>(payloads[lane / 4 * 4 + member])->a;
      for (unsigned i = 0; i < 4; ++i) {
        const unsigned column = 2 * member + i / 2 * 8;
        own.rows[i % 2][column] = __uint_as_float(a[i] << 16U);
        own.rows[i % 2][column + 1] = __uint_as_float(a[i] & 0xffff0000U);
      }
    }
  }
}

/// d (+)= rows of a · b, in this lane's elements of d.
void multiply(Product& product, const Fragments& fragments, std::uint64_t b, bool is_b_along_rows) {
  const int member = runner().current().index % 4;
  for (int i = 0; i < product.blocks; ++i) {
    for (int side = 0; side < 2; ++side) {
      const int column = 8 * i + 2 * member + side;
      float sums[2] = {};
      for (int k = 0; k < 16; ++k) {
        const float of_b = operand_element(b, is_b_along_rows, column, k);
        sums[0] += fragments.rows[0][static_cast<std::size_t>(k)] * of_b;
        sums[1] += fragments.rows[1][static_cast<std::size_t>(k)] * of_b;
      }
      std::array<float, 4>& result = product.result[static_cast<std::size_t>(i)];
      const auto element = static_cast<std::size_t>(side);
      result[element] += sums[0];
      result[element + 2] += sums[1];
    }
  }
}

void check_fence(Site site) {
  if (!mine().is_fenced) {
    fail_thread("a product without wgmma_fence since the last wait", site);
  }
}

int first_row_of_warp() {
  return runner().current().index % kWarpgroup / 32 * 16;
}

}  // namespace

unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(static_cast<const unsigned char*>(pointer) - block.tiles) + kFirstTile;
}

/// The first call of each thread: what a block before it has left is forgotten.
unsigned char* aligned_tiles(unsigned char* shared) {
  const RunnerWork work;
  const auto address = reinterpret_cast<std::uintptr_t>(shared);
  if (block.number != runner().block_count()) {
    block = {};
    block.number = runner().block_count();
    block.tiles = shared + (kTileAlignment - address % kTileAlignment) % kTileAlignment;
    runner().set_idle_work(deliver_one);
  }
  mine() = {};
  return block.tiles;
}

void barrier_init(Barrier* barrier, unsigned arrivals) {
  const auto count = static_cast<std::uint16_t>(arrivals);
  const BarrierState state{0, count, static_cast<std::uint16_t>(count & 0x7fffU), 0};
  std::memcpy(barrier, &state, sizeof(state));
}

void barrier_arrive(Barrier* barrier, const char* file, int line) {
  BarrierState state = load(barrier);
  if (state.pending == 0) {
    fail_thread("an arrival more than the barrier was initialised for", {file, line});
  }
  --state.pending;
  store(barrier, state);
}

void barrier_expect(Barrier* barrier, unsigned bytes, const char* file, int line) {
  BarrierState state = load(barrier);
  if (state.pending == 0) {
    fail_thread("bytes expected after the last arrival", {file, line});
  }
  state.bytes += static_cast<std::int32_t>(bytes);
  std::memcpy(barrier, &state, sizeof(state));
}

// NOLINTNEXTLINE(readability-non-const-parameter): the signature of the device
void barrier_wait(Barrier* barrier, std::uint32_t parity, const char* file, int line) {
  if (runner().draw(2) == 1) {
    deliver_one();
  }
  struct Wait {
    const Barrier* barrier;
    std::uint32_t parity;
  } wait{barrier, parity};
  runner().wait_until("mbarrier",
                      [](const void* payload) {
                        const auto& of = *static_cast<const Wait*>(payload);
                        return load(of.barrier).phase != of.parity;
                      },
                      &wait, {file, line});
}

void named_barrier(int id, int count, const char* file, int line) {
  const auto number = static_cast<std::size_t>(id);
  struct Wait {
    std::size_t number;
    std::uint64_t opened;
  } wait{number, block.opened[number]};
  if (++block.arrived[number] == count) {
    block.arrived[number] = 0;
    ++block.opened[number];
    runner().wake();
  }
  runner().wait_until("bar.sync",
                      [](const void* payload) {
                        const auto& of = *static_cast<const Wait*>(payload);
                        return block.opened[of.number] != of.opened;
                      },
                      &wait, {file, line});
}

/// Until it arrives its bytes are NaN.
void tma_load(void* shared, const TensorMap& map, Barrier* barrier, const BoxPlace& at, const char* file,
              int line) {
  const RunnerWork work;
  const BulkCopy copy = copy_of(static_cast<unsigned char*>(shared), map, barrier, at, {file, line});
  std::memset(shared, 0xff, static_cast<std::size_t>(copy.map.rows) * 128);
  block.loads.push_back(copy);
}

namespace {
std::vector<BulkCopy> stores;  // of the thread that issues and waits: no other runs between
}

/// Written when it is waited for, from what shared memory holds then.
void tma_store(const TensorMap& map, const void* shared, const BoxPlace& at, const char* file, int line) {
  const RunnerWork work;
  stores.push_back(
      copy_of(static_cast<unsigned char*>(const_cast<void*>(shared)), map, nullptr, at, {file, line}));
}

void tma_store_wait() {
  const RunnerWork work;
  for (const BulkCopy& copy : stores) {
    for_each_element(copy, [](const unsigned char* from, BFloat16* element) {
      if (element != nullptr) {
        std::memcpy(element, from, sizeof(*element));
      }
    });
  }
  stores.clear();
}

void fence_shared_writes() {}

void check_idle(const void* registers, std::size_t bytes, const char* file, int line) {
  const auto* begin = static_cast<const unsigned char*>(registers);
  const auto is_inside = [&](const void* address) {
    const auto* at = static_cast<const unsigned char*>(address);
    return at >= begin && at < begin + bytes;
  };
  const ThreadProducts& thread = mine();
  if (std::any_of(thread.products.begin(), thread.products.end(),
                  [&](const Product& product) { return is_inside(product.d); }) ||
      std::any_of(thread.operands.begin(), thread.operands.end(),
                  [&](const Operand& operand) { return is_inside(operand.registers); })) {
    fail_thread("registers of a product that has not been waited for", {file, line});
  }
}

void wgmma_fence() {
  mine().is_fenced = true;
}

void wgmma_commit() {
  ++mine().group;
}

/// Results come to their registers; operands must be what they were when the product was issued. The warp
/// waits as one.
void wgmma_wait_at_most(int groups, const char* file, int line) {
  host_runner::warp_exchange("wgmma.wait_group", 0xffffffffU, [](void* const(&)[32], unsigned) {}, nullptr,
                             {file, line});
  ThreadProducts& thread = mine();
  thread.is_fenced = false;
  const auto is_done = [&](const auto& item) { return item.group < thread.group - groups; };
  for (const SharedOperand& operand : thread.shared) {
    if (is_done(operand) && checksum(operand) != operand.checksum) {
      fail_thread("shared memory that a product reads was overwritten before the product was waited for",
                  {file, line});
    }
  }
  for (const Operand& operand : thread.operands) {
    if (is_done(operand) && !std::equal(operand.values.begin(), operand.values.end(), operand.registers)) {
      fail_thread("registers that a product reads were written before the product was waited for",
                  {file, line});
    }
  }
  for (const Product& product : thread.products) {
    if (is_done(product)) {
      std::memcpy(product.d, product.result.data(),
                  sizeof(float) * 4 * static_cast<std::size_t>(product.blocks));
    }
  }
  const auto drop = [&](auto& items) {
    items.erase(std::remove_if(items.begin(), items.end(), is_done), items.end());
  };
  drop(thread.shared);
  drop(thread.operands);
  drop(thread.products);
}

void wgmma_issue(float* d, int blocks, std::uint64_t a, std::uint64_t b, bool accumulate, const char* file,
                 int line) {
  check_fence({file, line});
  Fragments fragments{nullptr, {}};
  host_runner::warp_exchange("wgmma", 0xffffffffU, share_fragments, &fragments, {file, line});
  const int row = first_row_of_warp() + runner().current().index % 32 / 4;
  for (int k = 0; k < 16; ++k) {
    fragments.rows[0][static_cast<std::size_t>(k)] = operand_element(a, false, row, k);
    fragments.rows[1][static_cast<std::size_t>(k)] = operand_element(a, false, row + 8, k);
  }
  multiply(product_on(d, blocks, accumulate), fragments, b, false);
  if (runner().current().index % 32 == 0) {
    note_shared(a, 16, first_row_of_warp(), false);
    note_shared(b, 8 * blocks, 0, false);
  }
}

void wgmma_issue(float* d, int blocks, const std::uint32_t* a, std::uint64_t b, const char* file, int line) {
  check_fence({file, line});
  Fragments fragments{a, {}};
  host_runner::warp_exchange("wgmma", 0xffffffffU, share_fragments, &fragments, {file, line});
  multiply(product_on(d, blocks, true), fragments, b, true);
  ThreadProducts& thread = mine();
  thread.operands.push_back({a, {a[0], a[1], a[2], a[3]}, thread.group});
  if (runner().current().index % 32 == 0) {
    note_shared(b, 8 * blocks, 0, true);
  }
}

/// The host's tensor map is its own: the fields, as they stand.
TensorMap tensor_map(const HeadTensor& x, int rows) {
  TensorMap map{};
  const MapFields fields{x, rows};
  static_assert(sizeof(fields) <= sizeof(map.words));
  std::memcpy(map.words, &fields, sizeof(fields));
  return map;
}

}  // namespace caravan::cuda::hopper
