#include "failure.h"

#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <limits>
#include <new>
#include <thread>

#include "mpi_session.h"

namespace caravan::app {
namespace {

std::string describe(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) {
    return "out of memory";
  }
  return error.what();
}

int exit_code_of(const std::exception& error) {
  if (const auto* agreed = dynamic_cast<const AgreedError*>(&error)) {
    return agreed->exit_code();
  }
  return dynamic_cast<const ConfigError*>(&error) != nullptr ? kExitUsage : kExitFailure;
}

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

/// The outcome of rank `source` on every rank.
Outcome broadcast(Outcome outcome, int source) {
  constexpr int kMaxMessageBytes = 1 << 20;
  int header[2] = {outcome.exit_code,
                   static_cast<int>(std::min<std::size_t>(outcome.message.size(), kMaxMessageBytes))};
  MPI_Bcast(header, 2, MPI_INT, source, MPI_COMM_WORLD);
  outcome.exit_code = header[0];
  outcome.message.resize(static_cast<std::size_t>(header[1]));
  MPI_Bcast(outcome.message.data(), header[1], MPI_CHAR, source, MPI_COMM_WORLD);
  return outcome;
}

}  // namespace

void agree(const std::function<void()>& work) {
  const LaunchPlace place = current_place();
  if (!mpi_is_running() || place.size == 1) {
    work();
    return;
  }
  Outcome outcome = attempt(work);
  const bool failed = outcome.exit_code != 0;
  int first = failed ? place.rank : std::numeric_limits<int>::max();
  int failures = failed ? 1 : 0;
  MPI_Allreduce(MPI_IN_PLACE, &first, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
  MPI_Allreduce(MPI_IN_PLACE, &failures, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  if (failures == 0) {
    return;
  }
  outcome = broadcast(std::move(outcome), first);
  throw AgreedError(
      failures == place.size ? outcome.message : fmt::format("rank {}: {}", first, outcome.message),
      outcome.exit_code);
}

int report_failure(const std::exception& error) {
  const LaunchPlace place = current_place();
  const int exit_code = exit_code_of(error);
  const bool all_know = dynamic_cast<const AgreedError*>(&error) != nullptr || !mpi_is_running();
  if (place.size == 1 || all_know) {
    if (place.rank == 0) {
      fmt::print(stderr, "caravan: {}\n", describe(error));
    }
    return exit_code;
  }
  // Ranks that fail alike would each print: the lower ones get a head start to end the job first.
  std::this_thread::sleep_for(std::chrono::milliseconds(150 * std::min(place.rank, 6)));
  fmt::print(stderr, "caravan: rank {}: {}\n", place.rank, describe(error));
  std::fflush(nullptr);
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  return exit_code;
}

}  // namespace caravan::app
