// State of the launch that is running; private to the runner. Everything here is touched by one OS thread.
#pragma once

#include <array>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "host_runner/fiber.h"
#include "host_runner/host_runner.h"

namespace caravan::host_runner {

/// A cp.async that has been issued and has not arrived.
struct PendingCopy {
  void* to;
  const void* from;
  std::size_t bytes;
  int group;
};

struct Thread {
  enum class Place : std::uint8_t { kReady, kBarrier, kWarp, kCondition, kReturned };

  std::unique_ptr<Fiber> fiber{};
  int index = 0;
  Place place = Place::kReady;
  // What it waits for, when it does.
  const char* operation = "";
  Site site{"", 0};
  unsigned mask = 0;
  void* payload = nullptr;
  bool (*condition)(const void*) = nullptr;  // of payload
  std::vector<PendingCopy> copies{};
  int copy_group = 0;  // number of the group that the next commit closes
  // Addresses ThreadSanitizer knows an order by: what this lane has done before it arrived, and what the
  // lanes of its mask had done when it was woken.
  char arrived = 0;
  char woken = 0;
};

/// The dynamic shared memory of one block.
class SharedPieces {
 public:
  SharedPieces();
  ~SharedPieces();
  SharedPieces(const SharedPieces&) = delete;
  SharedPieces& operator=(const SharedPieces&) = delete;
  SharedPieces(SharedPieces&&) = delete;
  SharedPieces& operator=(SharedPieces&&) = delete;

  /// For a new block: every byte 0xff (NaN in float and bfloat16), no piece taken.
  void reset();
  /// Throws nothing: an empty string, or what is wrong. `limit` is what the kernel was launched with.
  std::string take(int piece, std::size_t bytes, std::size_t limit, void*& address);

 private:
  struct Piece {
    std::size_t begin;
    std::size_t bytes;
  };
  unsigned char* memory_;
  std::vector<Piece> pieces_;
  std::size_t used_ = 0;         // of memory_, gaps included
  std::size_t device_used_ = 0;  // of what the GPU would have
};

class Runner {
 public:
  void set_options(const Options& options) { options_ = options; }
  std::size_t set_most_shared_bytes(std::size_t bytes) { return std::exchange(most_shared_bytes_, bytes); }
  unsigned most_blocks_yz() const { return most_blocks_yz_; }
  void set_most_blocks_yz(unsigned blocks) { most_blocks_yz_ = blocks; }
  void set_launch_gate(LaunchGate gate) { gate_ = gate; }
  void run_grid(const char* name, dim3 grid, dim3 block, std::size_t shared_bytes, void (*body)(void*),
                void* context);
  void barrier(Site site);
  void warp_exchange(const char* operation, unsigned mask, WarpResolve resolve, void* payload, Site site);
  /// Waits until condition(payload), which is asked again after every wake(). payload is the caller's.
  void wait_until(const char* operation, bool (*condition)(const void*), void* payload, Site site);
  /// Something that conditions look at has changed.
  void wake();
  /// What the device does beside its threads: called when none can go on, until it returns false. Of this
  /// block only.
  void set_idle_work(bool (*work)()) { idle_work_ = work; }
  /// Below `count`: 0 in the forward schedule, count − 1 in reverse, else by chance.
  std::size_t draw(std::size_t count);
  void* take_shared(int piece, std::size_t bytes, Site site);
  [[noreturn]] void fail_thread(std::string what, Site site);
  Thread& current() { return *current_; }
  /// Counts the blocks that have begun.
  std::uint64_t block_count() const { return block_count_; }

 private:
  /// Fibers and shared memory of a block; used again by the next block, or where blocks are independent by
  /// the next launch, which comes after this one anyway.
  struct Team {
    std::vector<std::unique_ptr<Thread>> threads;
    SharedPieces shared;
  };

  Team& team_of(std::size_t number);
  void run_block();
  Thread* next_ready();
  void set_ready(Thread& thread);
  void suspend(Thread& self, Thread::Place place, const char* operation, Site site);
  void thread_main(Thread& self);
  void set_thread_index(int index);
  std::vector<std::int64_t> block_order();
  std::uint64_t random();
  void abandon();

  // diagnostics.cpp
  std::string where_am_i() const;
  std::string describe_threads() const;
  std::string why_stuck() const;

  Options options_;
  LaunchGate gate_ = nullptr;
  std::uint64_t random_state_ = 0;
  const char* name_ = "";
  std::size_t shared_bytes_ = 0;
  std::size_t most_shared_bytes_ = kPortableSharedBytes;
  unsigned most_blocks_yz_ = kMostBlocksYz;
  void (*body_)(void*) = nullptr;
  void* context_ = nullptr;
  int n_threads_ = 0;

  std::vector<std::unique_ptr<Team>> teams_;
  Team* team_ = nullptr;
  Thread* current_ = nullptr;
  std::vector<unsigned> ready_;  // per warp, one bit per lane
  std::vector<int> warp_order_;  // precedence, highest first
  bool (*idle_work_)() = nullptr;
  std::uint64_t block_count_ = 0;
  int at_barrier_ = 0;
  int returned_ = 0;
  std::string fault_;
  std::exception_ptr thrown_;
  // Orders of the block for ThreadSanitizer: two barrier slots by parity, since a thread that is already at
  // the next barrier would else count as ordered before its peers; one for the begin and one for the end of
  // the grid.
  std::array<char, 2> barrier_slots_{};
  std::uint64_t barriers_ = 0;
  char begin_slot_ = 0;
  char end_slot_ = 0;
};

Runner& runner();

}  // namespace caravan::host_runner
