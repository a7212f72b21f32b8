#include "failure.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <new>
#include <thread>

#include "caravan/comm/mpi_session.h"
#include "caravan/comm/operation_log.h"
#include "caravan/core/utf8.h"

namespace caravan::app {
namespace {

std::string describe(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) {
    return "out of memory";
  }
  if (const auto* file = dynamic_cast<const std::filesystem::filesystem_error*>(&error)) {
    return fmt::format("{}: {}", printable(file->path1().string(), LineEnds::kEscape),
                       file->code().message());
  }
  return printable(error.what(), LineEnds::kKeep);  // it may quote a file
}

int exit_code_of(const std::exception& error) {
  if (const auto* agreed = dynamic_cast<const AgreedError*>(&error)) {
    return agreed->exit_code();
  }
  return dynamic_cast<const ConfigError*>(&error) != nullptr ? kExitUsage : kExitFailure;
}

constexpr std::size_t kLastOperations = 4;

struct Outcome {
  int exit_code = 0;
  std::string message;
};

Outcome attempt(const std::function<void()>& work) {
  try {
    work();
    return {};
  } catch (const std::exception& error) {
    return {exit_code_of(error), describe(error)};
  }
}

}  // namespace

void agree(const std::function<void()>& work) {
  if (!MpiSession::exists() || MpiSession::current().world().size() == 1) {
    work();
    return;
  }
  Communicator& world = MpiSession::current().world();
  Outcome outcome = attempt(work);
  const std::int64_t failures = world.all_reduce_value(std::int64_t{outcome.exit_code != 0 ? 1 : 0});
  if (failures == 0) {
    return;
  }
  const std::int64_t mine = outcome.exit_code != 0 ? world.rank() : world.size();
  const std::int64_t first = world.all_reduce_value(mine, ReduceOp::kMin);
  world.broadcast_bytes(outcome.message, static_cast<int>(first));
  const std::int64_t exit_code =
      world.all_reduce_value(mine == first ? std::int64_t{outcome.exit_code} : 0, ReduceOp::kMax);
  throw AgreedError(
      failures == world.size() ? outcome.message : fmt::format("rank {}: {}", first, outcome.message),
      static_cast<int>(exit_code));
}

void let_rank_zero_speak() {
  std::fflush(nullptr);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
}

int head_start_milliseconds(int rank) {
  constexpr int kFirst = 6;  // ranks with a long head start: nearly always one of them has failed too
  constexpr int kLongest = 20000;
  return std::min(150 * std::min(rank, kFirst) + 20 * std::max(rank - kFirst, 0), kLongest);
}

std::unique_ptr<CommWatch> watch_waiting(std::optional<double> limit_seconds) {
  const LaunchPlace place = launch_place();
  if (!limit_seconds || place.size == 1) {
    return nullptr;
  }
  return std::make_unique<CommWatch>(*limit_seconds, [place](const std::string& report) {
    constexpr unsigned kPatienceSeconds = 20;  // for MPI to end the job, whose own thread is in a call
    fmt::print(stderr, "caravan: rank {}: {}\n", place.rank, report);
    std::fflush(nullptr);
    // The others that wait began about when this one did: they have a moment to report as well.
    std::this_thread::sleep_for(std::chrono::seconds(2));
    ::alarm(kPatienceSeconds);
    MpiSession::abort(kExitFailure);
  });
}

void add_timeout_option(CLI::App& command, double& seconds) {
  command
      .add_option("--timeout-seconds", seconds,
                  "How long a rank may wait for others in one operation before it says what it waits for and "
                  "ends the job")
      ->check(CLI::Range(1e-3, 1e9))
      ->capture_default_str();
}

int report_failure(const std::exception& error) {
  const LaunchPlace place = launch_place();
  const int exit_code = exit_code_of(error);
  const bool is_agreed = dynamic_cast<const AgreedError*>(&error) != nullptr;
  if (place.size == 1 || is_agreed || !MpiSession::exists()) {
    if (place.rank == 0) {
      fmt::print(stderr, "caravan: {}\n", describe(error));
    } else if (is_agreed) {
      return 0;
    } else {
      let_rank_zero_speak();
    }
    return exit_code;
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(head_start_milliseconds(place.rank)));
  const std::string last = OperationLog::of_this_rank().describe_last(kLastOperations);
  fmt::print(stderr, "caravan: rank {}: {}\n{}{}", place.rank, describe(error),
             last.empty() ? "" : "last operations with other ranks:\n", last);
  MpiSession::abort(exit_code);
}

}  // namespace caravan::app
