// Our own threads: a small pool that divides index ranges. Results never depend on the number of threads as
// long as each index writes its own output.
#pragma once

#include <cstdint>
#include <functional>

namespace caravan {

/// Threads used by parallel_for in this process, 1 at start. Call between parallel regions only.
void set_thread_count(int count);
int thread_count();

/// Calls body(begin, end) for disjoint ranges that cover [0, count), each a multiple of `grain` long but the
/// last. Runs inline when one thread suffices. `body` must not throw and must not call parallel_for.
void parallel_for(std::int64_t count, std::int64_t grain,
                  const std::function<void(std::int64_t begin, std::int64_t end)>& body);

}  // namespace caravan
