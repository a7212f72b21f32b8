#include "caravan/comm/operation_log.h"

#include <catch2/catch.hpp>
#include <thread>

#include "caravan/comm/comm_watch.h"
#include "caravan/comm/counting_communicator.h"
#include "caravan/comm/self_communicator.h"

using namespace caravan;

namespace {

CommOperation operation_of(std::int64_t number) {
  CommOperation operation{.what = "all_reduce",
                          .group = {'t', 'p'},
                          .rank = 1,
                          .size = 4,
                          .number = number,
                          .bytes = 96,
                          .site = {"/some/where/parallel/tensor_boundary.cpp", 21}};
  return operation;
}

std::size_t lines_of(const std::string& text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

}  // namespace

TEST_CASE("an operation is described by group, number, bytes and place", "[comm][log]") {
  CHECK(
      describe(operation_of(17)) ==
      "all_reduce number 17 of group tp (rank 1 of 4 there), 96 bytes, from parallel/tensor_boundary.cpp:21");
}

TEST_CASE("what blocks is known until it ends, what is only started does not block", "[comm][log]") {
  OperationLog log;
  CHECK_FALSE(log.blocked());
  CHECK(log.describe_last(8).empty());
  const auto started = log.begin_started(operation_of(1));
  CHECK_FALSE(log.blocked());
  CHECK_THAT(log.describe_last(8), Catch::Contains("number 1") && Catch::Contains("started, not waited on"));
  const auto blocking = log.begin_blocking(operation_of(2));
  REQUIRE(log.blocked());
  CHECK(log.blocked()->operation.number == 2);
  CHECK(log.blocked()->seconds >= 0.0);
  CHECK_THAT(log.describe_last(1), Catch::Contains("number 2") && Catch::Contains("not ended"));
  log.end(blocking);
  CHECK_FALSE(log.blocked());
  log.wait_begins(started);
  CHECK(log.blocked()->operation.number == 1);
  log.wait_ends(started);
  CHECK_FALSE(log.blocked());
  CHECK(log.describe_last(8).find("not") == std::string::npos);
}

TEST_CASE("the newest operations stay", "[comm][log]") {
  OperationLog log;
  const auto first = log.begin_started(operation_of(1));
  for (std::int64_t i = 2; i <= 100; ++i) {
    log.end(log.begin_blocking(operation_of(i)));
  }
  const std::string all = log.describe_last(1000);
  CHECK(lines_of(all) == OperationLog::kCapacity);
  CHECK_THAT(all, Catch::Contains("number 100 ") && !Catch::Contains("number 36 "));
  CHECK(lines_of(log.describe_last(3)) == 3);
  log.wait_begins(first);  // long out of the ring
  CHECK(log.blocked()->operation.what == "an operation started long ago");
  log.wait_ends(first);
  CHECK_FALSE(log.blocked());
}

TEST_CASE("groups that never wait are not in the log", "[comm][log]") {
  const std::string before = OperationLog::of_this_rank().describe_last(8);
  SelfCommunicator self;
  self.all_reduce_value(1.0);
  CountingCommunicator counting(0, 4);
  counting.all_reduce_value(1.0);
  CHECK(OperationLog::of_this_rank().describe_last(8) == before);
}

TEST_CASE("the watch speaks once when an operation takes too long, and not before", "[comm][watch]") {
  OperationLog& log = OperationLog::of_this_rank();
  std::vector<std::string> reports;
  {
    CommWatch watch(0.2, [&](const std::string& report) { reports.push_back(report); });
    log.end(log.begin_blocking(operation_of(1)));
    const auto ticket = log.begin_blocking(operation_of(2));
    std::this_thread::sleep_for(std::chrono::milliseconds(600));
    log.end(ticket);
  }
  REQUIRE(reports.size() == 1);
  CHECK_THAT(reports.front(), Catch::Contains(" s for other ranks in all_reduce number 2 of group tp"));
  CHECK_THAT(reports.front(), Catch::Contains("number 1") && Catch::Contains("not ended"));
  reports.clear();
  {
    CommWatch watch(60.0, [&](const std::string& report) { reports.push_back(report); });
    const auto ticket = log.begin_blocking(operation_of(3));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    log.end(ticket);
  }
  CHECK(reports.empty());
}
