// Running a case under every schedule of the host runner.
#pragma once

#include <catch2/catch.hpp>

#include "host_runner/host_runner.h"

namespace caravan::test {

inline constexpr host_runner::Options kSchedules[] = {{host_runner::Schedule::kForward, 1},
                                                      {host_runner::Schedule::kReverse, 1},
                                                      {host_runner::Schedule::kRandomThread, 7},
                                                      {host_runner::Schedule::kRandomWarp, 11}};

/// Calls body() under each schedule; the schedule and its seed are in the report of a failure.
/// ThreadSanitizer judges by what orders two accesses and not by what happened to come first, so one schedule
/// is enough there.
template <class Body>
void for_each_schedule(const Body& body) {
  for (const host_runner::Options& options : kSchedules) {
    host_runner::set_options(options);
    const int races = host_runner::race_reports();
    INFO("schedule " << host_runner::schedule_name(options.schedule) << ", seed " << options.seed);
    body();
    CHECK(host_runner::race_reports() == races);
    if (host_runner::kThreadSanitizer) {
      break;
    }
  }
  host_runner::set_options({});
}

/// Runs `is_right` under the schedules: it launches a kernel with a race and compares. ThreadSanitizer has to
/// report in the forward run; else at least one schedule has to give a wrong result.
template <class IsRight>
void expect_race(const IsRight& is_right) {
  if (host_runner::kThreadSanitizer) {
    const int before = host_runner::race_reports();
    is_right();
    CHECK(host_runner::race_reports() > before);
    return;
  }
  int wrong = 0;
  for (const host_runner::Options& options : kSchedules) {
    host_runner::set_options(options);
    wrong += is_right() ? 0 : 1;
  }
  host_runner::set_options({});
  CHECK(wrong > 0);
}

/// Grids of two blocks at most in y and in z: a few batch rows take several launches.
struct SmallGrids {
  SmallGrids() { host_runner::set_most_blocks_yz(2); }
  ~SmallGrids() { host_runner::set_most_blocks_yz(host_runner::kMostBlocksYz); }
  SmallGrids(const SmallGrids&) = delete;
  SmallGrids& operator=(const SmallGrids&) = delete;
  SmallGrids(SmallGrids&&) = delete;
  SmallGrids& operator=(SmallGrids&&) = delete;
};

}  // namespace caravan::test
