// Our own threads: a small pool that divides index ranges. Results never depend on the number of threads as
// long as each index writes its own output.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace caravan {

/// Threads used by parallel_for in this process, 1 at start. Call between parallel regions only.
void set_thread_count(int count);
int thread_count();
/// Inside a body: which of the threads runs it, 0 to thread_count() - 1; 0 is the caller.
int thread_index();

/// A reference to something callable with (begin, end). It owns nothing and allocates nothing, which
/// std::function does for a lambda of more than two references.
class RangeBody {
 public:
  template <class Body, class = std::enable_if_t<!std::is_same_v<std::remove_cvref_t<Body>, RangeBody>>>
  // NOLINTNEXTLINE(google-explicit-constructor): a lambda is passed where this stands
  RangeBody(const Body& body)
      : body_(std::addressof(body)), call_([](const void* object, std::int64_t begin, std::int64_t end) {
          (*static_cast<const Body*>(object))(begin, end);
        }) {}
  void operator()(std::int64_t begin, std::int64_t end) const { call_(body_, begin, end); }

 private:
  const void* body_;
  void (*call_)(const void* object, std::int64_t begin, std::int64_t end);
};

/// Calls body(begin, end) for disjoint ranges that cover [0, count), each a multiple of `grain` long but the
/// last. Runs inline when one thread suffices. `body` must not throw and must not call parallel_for.
void parallel_for(std::int64_t count, std::int64_t grain, RangeBody body);

}  // namespace caravan
