// Running a case under every schedule of the host runner.
#pragma once

#include <catch2/catch.hpp>
#include <vector>

#include "host_runner/host_runner.h"

namespace caravan::test {

/// Calls body() under each schedule; the schedule and its seed are in the report of a failure.
/// ThreadSanitizer judges by what orders two accesses and not by what happened to come first, so one schedule
/// is enough there.
template <class Body>
void for_each_schedule(const Body& body) {
  using host_runner::Schedule;
  std::vector<host_runner::Options> all = {{Schedule::kForward, 1}};
  if (!host_runner::kThreadSanitizer) {
    all.push_back({Schedule::kReverse, 1});
    all.push_back({Schedule::kRandomThread, 7});
    all.push_back({Schedule::kRandomWarp, 11});
  }
  for (const host_runner::Options& options : all) {
    host_runner::set_options(options);
    const int races = host_runner::race_reports();
    INFO("schedule " << host_runner::schedule_name(options.schedule) << ", seed " << options.seed);
    body();
    CHECK(host_runner::race_reports() == races);
  }
  host_runner::set_options({});
}

}  // namespace caravan::test
