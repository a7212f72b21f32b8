// Blocks one after another, threads in the order of the schedule, barriers.
#include <algorithm>
#include <bit>
#include <numeric>

#include "host_runner/runner.h"
#include "host_runner/sanitizers.h"

namespace caravan::host_runner {
namespace {

constexpr unsigned kWarpSize = 32;
constexpr unsigned kMostThreads = 1024;  // of a block, on every GPU since sm_80

}  // namespace

Runner& runner() {
  static auto* const the_runner = new Runner;  // never destroyed: its fibers may be suspended
  return *the_runner;
}

// splitmix64 (Steele, Lea and Flood 2014)
std::uint64_t Runner::random() {
  random_state_ += 0x9E3779B97F4A7C15U;
  std::uint64_t z = random_state_;
  z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
  return z ^ (z >> 31U);
}

void Runner::run_grid(const char* name, dim3 grid, dim3 block, std::size_t shared_bytes, void (*body)(void*),
                      void* context) {
  const unsigned threads = block.x * block.y * block.z;
  if (threads == 0 || threads > kMostThreads || grid.x == 0 || grid.y == 0 || grid.z == 0 ||
      grid.y > most_blocks_yz_ || grid.z > most_blocks_yz_ || shared_bytes > most_shared_bytes_) {
    fail<KernelError>(
        "kernel {}: grid ({}, {}, {}), block ({}, {}, {}), {} bytes of shared memory cannot be "
        "launched: 1 to {} threads, no empty grid, grid.y and grid.z up to {}, up to {} bytes",
        name, grid.x, grid.y, grid.z, block.x, block.y, block.z, shared_bytes, kMostThreads, most_blocks_yz_,
        most_shared_bytes_);
  }
  CARAVAN_CHECK(current_ == nullptr, "kernel {} is launched from inside a kernel", name);
  name_ = name;
  shared_bytes_ = shared_bytes;
  body_ = body;
  context_ = context;
  n_threads_ = static_cast<int>(threads);
  gridDim = grid;
  blockDim = block;
  random_state_ = options_.seed;
  struct Gate {
    explicit Gate(LaunchGate told) : gate(told) { tell(true); }
    ~Gate() { tell(false); }
    Gate(const Gate&) = delete;
    Gate& operator=(const Gate&) = delete;
    Gate(Gate&&) = delete;
    Gate& operator=(Gate&&) = delete;
    void tell(bool begins) const {
      if (gate != nullptr) {
        gate(begins);
      }
    }
    LaunchGate gate;
  } const gate(gate_);
  tsan_release(&begin_slot_);
  std::size_t number = 0;
  for (const std::int64_t index : block_order()) {
    const auto x = static_cast<std::int64_t>(grid.x);
    const auto y = static_cast<std::int64_t>(grid.y);
    blockIdx = {static_cast<unsigned>(index % x), static_cast<unsigned>(index / x % y),
                static_cast<unsigned>(index / x / y)};
    team_ = &team_of(kIndependentBlocks ? number++ : 0);
    run_block();
  }
  tsan_acquire(&end_slot_);
}

std::vector<std::int64_t> Runner::block_order() {
  std::vector<std::int64_t> order(static_cast<std::size_t>(gridDim.x) * gridDim.y * gridDim.z);
  std::iota(order.begin(), order.end(), 0);
  if (options_.schedule == Schedule::kReverse) {
    std::reverse(order.begin(), order.end());
  } else if (options_.schedule != Schedule::kForward) {
    for (std::size_t i = order.size(); i > 1; --i) {
      std::swap(order[i - 1], order[random() % i]);
    }
  }
  return order;
}

Runner::Team& Runner::team_of(std::size_t number) {
  while (teams_.size() <= number) {
    teams_.push_back(std::make_unique<Team>());
  }
  Team& team = *teams_[number];
  while (team.threads.size() < static_cast<std::size_t>(n_threads_)) {
    auto thread = std::make_unique<Thread>();
    Thread* self = thread.get();
    self->index = static_cast<int>(team.threads.size());
    self->fiber = std::make_unique<Fiber>(
        [](void* argument) { runner().thread_main(*static_cast<Thread*>(argument)); }, self);
    team.threads.push_back(std::move(thread));
  }
  return team;
}

void Runner::thread_main(Thread& self) {
  for (;;) {  // once per block
    tsan_acquire(&begin_slot_);
    try {
      body_(context_);
    } catch (...) {
      const RunnerWork work;
      thrown_ = std::current_exception();
    }
    const RunnerWork work;
    ++returned_;
    tsan_release(&end_slot_);
    suspend(self, Thread::Place::kReturned, "return", {"", 0});
  }
}

void Runner::run_block() {
  team_->shared.reset();
  idle_work_ = nullptr;
  ++block_count_;
  at_barrier_ = 0;
  returned_ = 0;
  const std::size_t warps = (static_cast<std::size_t>(n_threads_) + kWarpSize - 1) / kWarpSize;
  ready_.assign(warps, 0);
  warp_order_.resize(warps);
  std::iota(warp_order_.begin(), warp_order_.end(), 0);
  if (options_.schedule == Schedule::kRandomWarp) {
    for (std::size_t i = warps; i > 1; --i) {
      std::swap(warp_order_[i - 1], warp_order_[random() % i]);
    }
  }
  for (int index = 0; index < n_threads_; ++index) {
    Thread& thread = *team_->threads[static_cast<std::size_t>(index)];
    thread.copies.clear();
    thread.copy_group = 0;
    set_ready(thread);
  }
  while (returned_ < n_threads_) {
    Thread* next = next_ready();
    if (next == nullptr) {
      if (idle_work_ == nullptr || !idle_work_()) {
        fault_ = why_stuck();
      }
    } else {
      current_ = next;
      set_thread_index(next->index);
      next->fiber->resume();
      current_ = nullptr;
    }
    if (!fault_.empty() || thrown_ != nullptr) {
      abandon();
    }
  }
}

/// After a fault: what the threads have left on their stacks is dropped.
void Runner::abandon() {
  for (const std::unique_ptr<Team>& team : teams_) {
    for (const std::unique_ptr<Thread>& thread : team->threads) {
      thread->fiber->release_to(&end_slot_);
    }
  }
  tsan_acquire(&end_slot_);
  teams_.clear();
  team_ = nullptr;
  current_ = nullptr;
  const std::string fault = std::exchange(fault_, {});
  if (const std::exception_ptr thrown = std::exchange(thrown_, nullptr)) {
    std::rethrow_exception(thrown);
  }
  throw KernelError(fault);
}

void Runner::set_ready(Thread& thread) {
  thread.place = Thread::Place::kReady;
  const auto index = static_cast<unsigned>(thread.index);
  ready_[index / kWarpSize] |= 1U << (index % kWarpSize);
}

Thread* Runner::next_ready() {
  const auto warps = static_cast<int>(ready_.size());
  const bool is_random = options_.schedule == Schedule::kRandomThread;
  const int first = is_random ? static_cast<int>(random() % ready_.size()) : 0;
  for (int k = 0; k < warps; ++k) {
    int warp = warp_order_[static_cast<std::size_t>((first + k) % warps)];
    if (options_.schedule == Schedule::kReverse) {
      warp = warps - 1 - warp;
    }
    const unsigned ready = ready_[static_cast<std::size_t>(warp)];
    if (ready == 0) {
      continue;
    }
    int lane = std::countr_zero(ready);
    if (options_.schedule == Schedule::kReverse) {
      lane = 31 - std::countl_zero(ready);
    } else if (is_random) {
      const auto turn = static_cast<int>(random() % kWarpSize);
      lane = (std::countr_zero(std::rotr(ready, turn)) + turn) % 32;
    }
    return team_->threads[static_cast<std::size_t>(warp) * 32 + static_cast<std::size_t>(lane)].get();
  }
  return nullptr;
}

void Runner::set_thread_index(int index) {
  const auto i = static_cast<unsigned>(index);
  threadIdx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
}

void Runner::suspend(Thread& self, Thread::Place place, const char* operation, Site site) {
  self.place = place;
  self.operation = operation;
  self.site = site;
  const auto index = static_cast<unsigned>(self.index);
  ready_[index / kWarpSize] &= ~(1U << (index % kWarpSize));
  self.fiber->suspend();
}

/// Nothing that owns memory may be left on the stack, which is not unwound.
void Runner::fail_thread(std::string what, Site site) {
  const RunnerWork work;
  fault_ =
      fmt::format("{}: thread {} at {}:{}: {}", where_am_i(), current_->index, site.file, site.line, what);
  std::string().swap(what);
  suspend(*current_, Thread::Place::kReturned, "fault", site);
  std::terminate();  // never resumed
}

/// The barrier opens when all threads of the block have come to it at one line; a thread that has returned
/// never comes.
void Runner::barrier(Site site) {
  const RunnerWork work;
  Thread& self = *current_;
  char* slot = &barrier_slots_[barriers_ % 2];
  tsan_release(slot);
  if (++at_barrier_ == n_threads_) {
    self.place = Thread::Place::kBarrier;
    self.operation = "__syncthreads";
    self.site = site;
    const bool is_one_line = std::all_of(team_->threads.begin(), team_->threads.begin() + n_threads_,
                                         [&](const std::unique_ptr<Thread>& thread) {
                                           return thread->site.line == site.line &&
                                                  std::string_view(thread->site.file) == site.file;
                                         });
    if (!is_one_line) {
      fault_ = fmt::format("{}: threads of one block wait at different barriers: {}", where_am_i(),
                           describe_threads());
    } else {
      at_barrier_ = 0;
      ++barriers_;
      for (int index = 0; index < n_threads_; ++index) {
        set_ready(*team_->threads[static_cast<std::size_t>(index)]);
      }
      self.fiber->suspend();  // the schedule says who goes on first
      tsan_acquire(slot);
      return;
    }
  }
  suspend(self, Thread::Place::kBarrier, "__syncthreads", site);
  tsan_acquire(slot);
}

void Runner::wait_until(const char* operation, bool (*condition)(const void*), void* payload, Site site) {
  Thread& self = *current_;
  if (condition(payload)) {
    return;
  }
  self.payload = payload;
  self.condition = condition;
  suspend(self, Thread::Place::kCondition, operation, site);
}

void Runner::wake() {
  for (int index = 0; index < n_threads_; ++index) {
    Thread& thread = *team_->threads[static_cast<std::size_t>(index)];
    if (thread.place == Thread::Place::kCondition && thread.condition(thread.payload)) {
      set_ready(thread);
    }
  }
}

std::size_t Runner::draw(std::size_t count) {
  switch (options_.schedule) {
    case Schedule::kForward:
      return 0;
    case Schedule::kReverse:
      return count - 1;
    default:
      return random() % count;
  }
}

// ---- what kernels call

void set_launch_gate(LaunchGate gate) {
  runner().set_launch_gate(gate);
}

void set_options(const Options& options) {
  runner().set_options(options);
}
std::size_t set_most_shared_bytes(std::size_t bytes) {
  return runner().set_most_shared_bytes(bytes);
}
unsigned most_blocks_yz() {
  return runner().most_blocks_yz();
}
void set_most_blocks_yz(unsigned blocks) {
  runner().set_most_blocks_yz(blocks);
}
void run_grid(const char* name, dim3 grid, dim3 block, std::size_t shared_bytes, void (*body)(void*),
              void* context) {
  runner().run_grid(name, grid, block, shared_bytes, body, context);
}
void fail_thread(std::string what, Site site) {
  runner().fail_thread(std::move(what), site);
}

}  // namespace caravan::host_runner

void __syncthreads(const char* file, int line) {
  caravan::host_runner::runner().barrier({file, line});
}
