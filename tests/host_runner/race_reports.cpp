// Counts ThreadSanitizer's reports, so that a test can ask for one. The hooks are looked up by name.
#include "host_runner/host_runner.h"

namespace {
int reports = 0;
}  // namespace

namespace caravan::host_runner {

int race_reports() {
  return reports;
}

}  // namespace caravan::host_runner

#if defined(CARAVAN_HOST_RUNNER_TSAN)
extern "C" {
// NOLINTBEGIN(readability-identifier-naming)
void __tsan_on_report(void* /*report*/) {
  ++reports;
}
/// Tests assert the number of reports, so the exit status is theirs; equal reports of different cases count
/// each.
const char* __tsan_default_options() {
  return "exitcode=0:suppress_equal_stacks=0:suppress_equal_addresses=0:report_thread_leaks=0";
}
// NOLINTEND(readability-identifier-naming)
}
#endif
