// How the program ends when something goes wrong: one clear message, never one per rank, and no rank left
// waiting.
#pragma once

#include <CLI/CLI.hpp>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "caravan/comm/comm_watch.h"
#include "caravan/core/error.h"

namespace caravan::app {

constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;  // the command line or the configuration is wrong

/// A failure all ranks know of: rank 0 prints it and leaves with `exit_code`; the others stay silent and
/// leave with 0, since launchers kill the job at the first rank that fails, perhaps before rank 0 has spoken.
class AgreedError : public Error {
 public:
  AgreedError(const std::string& message, int exit_code) : Error(message), exit_code_(exit_code) {}
  int exit_code() const { return exit_code_; }

 private:
  int exit_code_;
};

/// Runs `work` on every rank and lets all of them go on or none. Collective over all ranks; `work` itself
/// must not communicate. For everything that can fail before the ranks depend on each other: reading the
/// configuration, opening files, checking sizes. When any rank failed, every rank throws AgreedError with the
/// message of the lowest failing rank (named unless all failed). With one rank, or without MPI, an exception
/// passes through unchanged.
void agree(const std::function<void()>& work);

/// For ranks other than 0 that leave, before MPI has started, with an error that rank 0 is about to print:
/// launchers kill the whole job as soon as one rank has left with an error, so these wait a moment.
void let_rank_zero_speak();

/// How long `rank` waits before it reports an error that the others may not know of. Ranks that fail alike
/// would each print: each gives the ones below it time to end the job first.
int head_start_milliseconds(int rank);

/// Ends the job with a message when this rank waits for others longer than `limit_seconds` in one operation;
/// null for one rank, or without a limit. Every rank that waits reports, so that the one that does not come
/// can be told.
std::unique_ptr<CommWatch> watch_waiting(std::optional<double> limit_seconds);

/// For commands without a configuration: --timeout-seconds, as comm.timeout_seconds of mode synchronous.
/// `seconds` has the default.
void add_timeout_option(CLI::App& command, double& seconds);

/// Says on standard error what ended the program and returns the exit code. With several ranks and an error
/// that the others do not know of, ends all of them by MPI_Abort and does not return.
int report_failure(const std::exception& error);

}  // namespace caravan::app
