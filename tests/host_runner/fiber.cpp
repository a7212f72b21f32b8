#include "host_runner/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <boost/context/detail/fcontext.hpp>

#include "caravan/core/error.h"
#include "host_runner/sanitizers.h"

namespace caravan::host_runner {
namespace {

using boost::context::detail::jump_fcontext;
using boost::context::detail::make_fcontext;
using boost::context::detail::transfer_t;

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kStackBytes = 512UL * 1024;  // redzones make frames several times larger
const void* scheduler_stack = nullptr;
std::size_t scheduler_stack_bytes = 0;
#else
constexpr std::size_t kStackBytes = 128UL * 1024;
#endif
#if defined(CARAVAN_HOST_RUNNER_TSAN)
void* scheduler_fiber = nullptr;
constexpr unsigned kNoSync = 1;  // a switch is not an order between the two fibers
#endif

std::size_t page_bytes() {
  static const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return page;
}

}  // namespace

struct Fiber::Switch {
  /// First thing on a fresh stack.
  static void begin(transfer_t from) {
    auto* self = static_cast<Fiber*>(from.data);
    self->resumer_ = from.fctx;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
    self->entry_(self->argument_);
  }
};

// The guard page lies below the stack, which grows down: an overflow faults instead of spoiling a neighbour.
Fiber::Fiber(Entry entry, void* argument) : entry_(entry), argument_(argument) {
  const std::size_t bytes = kStackBytes + page_bytes();
  mapping_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CARAVAN_CHECK(mapping_ != MAP_FAILED, "no memory for the stack of a fiber ({} bytes)", bytes);
  CARAVAN_CHECK(mprotect(mapping_, page_bytes(), PROT_NONE) == 0, "no guard page for the stack of a fiber");
#if defined(CARAVAN_HOST_RUNNER_TSAN)
  sanitizer_ = __tsan_create_fiber(0);
#endif
  restart();
}

Fiber::~Fiber() {
  restart();
#if defined(CARAVAN_HOST_RUNNER_TSAN)
  __tsan_destroy_fiber(sanitizer_);
#endif
  munmap(mapping_, kStackBytes + page_bytes());
}

void Fiber::restart() {
  char* stack = static_cast<char*>(mapping_) + page_bytes();
  unpoison(stack, kStackBytes);  // frames that were left without returning
  context_ = make_fcontext(stack + kStackBytes, kStackBytes, &Switch::begin);
}

void Fiber::release_to([[maybe_unused]] void* slot) {
#if defined(CARAVAN_HOST_RUNNER_TSAN)
  void* outside = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(sanitizer_, kNoSync);
  tsan_release(slot);
  __tsan_switch_to_fiber(outside, kNoSync);
#endif
}

void Fiber::resume() {
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, static_cast<char*>(mapping_) + page_bytes(), kStackBytes);
#endif
#if defined(CARAVAN_HOST_RUNNER_TSAN)
  scheduler_fiber = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(sanitizer_, kNoSync);
#endif
  context_ = jump_fcontext(context_, this).fctx;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

void Fiber::suspend() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&sanitizer_, scheduler_stack, scheduler_stack_bytes);
#endif
#if defined(CARAVAN_HOST_RUNNER_TSAN)
  RunnerWork::end();  // a fiber that is never resumed must not end with it open
  __tsan_switch_to_fiber(scheduler_fiber, kNoSync);
#endif
  resumer_ = jump_fcontext(resumer_, nullptr).fctx;
#if defined(CARAVAN_HOST_RUNNER_TSAN)
  RunnerWork::begin();
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(sanitizer_, &scheduler_stack, &scheduler_stack_bytes);
#endif
}

}  // namespace caravan::host_runner
