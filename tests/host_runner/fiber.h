// A stack of its own and the two switches to and from it, told to the sanitizers. One OS thread only.
#pragma once

#include <cstddef>

namespace caravan::host_runner {

/// Runs entry(argument) on its own stack whenever it is resumed, until it suspends. entry must never return.
/// A fiber may be destroyed or restarted while suspended: its stack is taken back without unwinding.
class Fiber {
 public:
  using Entry = void (*)(void*);
  Fiber(Entry entry, void* argument);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  Fiber(Fiber&&) = delete;
  Fiber& operator=(Fiber&&) = delete;

  /// From outside: goes on where the fiber suspended; returns when it suspends again.
  void resume();
  /// From inside, within a RunnerWork: back to the caller of resume().
  void suspend();
  /// From outside, for ThreadSanitizer: whoever acquires `slot` comes after all that this fiber has done.
  void release_to(void* slot);
  /// Forgets where it suspended: the next resume() begins entry anew.
  void restart();

 private:
  struct Switch;  // of Boost.Context
  friend struct Switch;

  Entry entry_;
  void* argument_;
  void* mapping_ = nullptr;
  void* context_ = nullptr;    // where resume() goes
  void* resumer_ = nullptr;    // where suspend() goes
  void* sanitizer_ = nullptr;  // ThreadSanitizer's name of this fiber, AddressSanitizer's fake stack
};

}  // namespace caravan::host_runner
