#include "caravan/core/parallel_for.h"

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <numeric>
#include <stdexcept>
#include <vector>

using namespace caravan;

TEST_CASE("every index is visited once, whatever the threads and the grain", "[core][parallel_for]") {
  for (const int threads : {1, 2, 5}) {
    set_thread_count(threads);
    for (const std::int64_t count : {0, 1, 7, 100, 1001}) {
      for (const std::int64_t grain : {1, 3, 64}) {
        std::vector<int> visits(static_cast<std::size_t>(count), 0);
        parallel_for(count, grain, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) {
            ++visits[static_cast<std::size_t>(i)];
          }
        });
        CHECK(std::accumulate(visits.begin(), visits.end(), 0) == count);
        CHECK(std::count(visits.begin(), visits.end(), 1) == count);
      }
    }
  }
  set_thread_count(1);
}

TEST_CASE("an exception in any thread arrives at the caller, and the pool goes on", "[core][parallel_for]") {
  for (const int threads : {1, 4}) {
    set_thread_count(threads);
    for (const std::int64_t culprit : {0, 50, 99}) {
      CHECK_THROWS_WITH(parallel_for(100, 1,
                                     [&](std::int64_t begin, std::int64_t end) {
                                       if (begin <= culprit && culprit < end) {
                                         throw std::runtime_error("here");
                                       }
                                     }),
                        "here");
    }
    std::atomic<std::int64_t> sum{0};
    parallel_for(10, 1, [&](std::int64_t begin, std::int64_t end) { sum += end - begin; });
    CHECK(sum == 10);
  }
  set_thread_count(1);
}

TEST_CASE("inside a body every thread has an index of its own", "[core][parallel_for]") {
  for (const int threads : {1, 3}) {
    set_thread_count(threads);
    std::vector<std::atomic<int>> inside(static_cast<std::size_t>(threads));
    std::atomic<int> clashes{0};
    parallel_for(300, 1, [&](std::int64_t, std::int64_t) {
      std::atomic<int>& mine = inside.at(static_cast<std::size_t>(thread_index()));
      clashes += mine.fetch_add(1);
      mine.fetch_sub(1);
    });
    CHECK(clashes == 0);
    CHECK(thread_index() == 0);
  }
  set_thread_count(1);
}
