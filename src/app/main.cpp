// The program: one binary, one subcommand per file of this folder. main starts MPI where a command needs it,
// catches what commands throw, says it once and ends all ranks.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <csignal>
#include <cstdlib>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "caravan/comm/mpi_session.h"
#include "caravan/core/error.h"
#include "caravan/core/log.h"
#include "caravan/core/nearest_name.h"
#include "commands.h"
#include "failure.h"
#include "versions.h"

namespace {

using namespace caravan;
using namespace caravan::app;

constexpr const char* kOutputLost =
    "standard output could not be written to its end (disk full, or the reader is gone)";

constexpr const char* kSyncKernels = "CARAVAN_SYNC_KERNELS";

/// Commands that run on many ranks; every other one works on files alone.
const std::set<std::string> kParallelCommands = {"train", "eval", "generate", "verify", "bench"};

void add_commands(CLI::App& program) {
  add_train_command(program);
  add_eval_command(program);
  add_generate_command(program);
  add_convert_command(program);
  add_tokenizer_command(program);
  add_inspect_command(program);
  add_verify_command(program);
  add_bench_command(program);
}

/// The command line as main got it, and the MPI session that a parallel command starts.
struct Process {
  int argc = 0;
  char** argv = nullptr;
  std::optional<MpiSession> mpi = {};
};

/// Leaves the choice where the launches of kernels look for it (kernels/cuda/launch_status.cpp).
void configure_sync_kernels(const std::string& choice) {
  if (!choice.empty() && choice != "0" && choice != "1") {
    fail<ConfigError>("--sync-kernels / {}: cannot read '{}'; give 1 or 0", kSyncKernels, choice);
  }
  ::setenv(kSyncKernels, choice.c_str(), 1);
}

/// Runs after the whole command line is read and before the command's callback.
void prepare_command(const CLI::App& program, const std::string& log_ranks, const std::string& sync_kernels,
                     Process& process) {
  const std::string name = program.get_subcommands().front()->get_name();
  const LaunchPlace place = launch_place();
  if (kParallelCommands.contains(name)) {
    process.mpi.emplace(process.argc, process.argv);
  } else if (place.size > 1) {
    fail<ConfigError>(
        "caravan {} works on files and runs in one process; it was started on {} ranks: leave "
        "out mpirun or srun",
        name, place.size);
  }
  agree([&] {
    log::configure(place.rank, place.size, log_ranks);
    configure_sync_kernels(sync_kernels);
  });
}

/// What to say of a command line that cannot be understood.
std::string describe_usage_error(const CLI::App* program, const CLI::Error& error) {
  constexpr const char* kHint = "Try caravan --help or caravan COMMAND --help.";
  const std::vector<std::string> rest = program->remaining();
  const bool is_command_missing = program->get_subcommands().empty() && error.get_name() == "RequiredError";
  if (!is_command_missing || (!rest.empty() && rest.front().starts_with('-'))) {
    return fmt::format("caravan: {}\n{}\n", error.what(), kHint);
  }
  std::vector<std::string> names;
  for (const CLI::App* command : program->get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(command->get_name());
  }
  const std::string problem =
      rest.empty() ? "a command is missing" : fmt::format("unknown command {}", rest.front());
  const auto near = rest.empty() ? std::nullopt : nearest_name(rest.front(), names);
  const std::string remedy =
      near ? fmt::format("did you mean {}?", *near) : fmt::format("there are {}", fmt::join(names, ", "));
  return fmt::format("caravan: {}; {}\n{}\n", problem, remedy, kHint);
}

int run(CLI::App& program, Process& process) {
  std::string log_ranks;
  program.fallthrough();
  program.require_subcommand(1);
  program.set_version_flag("--version", version_text, "Print version, commit, build options and libraries");
  program.add_option("--log-ranks", log_ranks, "Ranks that print progress besides errors: all, or like 0,2")
      ->envname("LOG_RANK");
  std::string sync_kernels = "0";
  program
      .add_flag("--sync-kernels{1}", sync_kernels,
                "Wait for every GPU kernel, so that a fault is reported with the kernel's name")
      ->envname(kSyncKernels);
  program.footer(
      "Examples:\n"
      "  mpirun -n 4 caravan train configs/train/llama3.2-3b-federated.yaml --set model.checkpoint=DIR\n"
      "  caravan COMMAND --help\n");
  program.failure_message(describe_usage_error);
  add_commands(program);
  program.parse_complete_callback([&] { prepare_command(program, log_ranks, sync_kernels, process); });
  try {
    program.parse(process.argc, process.argv);
  } catch (const CLI::ParseError& error) {
    // Help, --version or a wrong command line: every rank finds the same, rank 0 prints it.
    const bool is_wrong = error.get_exit_code() != 0;
    if (launch_place().rank == 0) {
      program.exit(error);
    } else if (is_wrong) {
      let_rank_zero_speak();
    }
    return is_wrong ? kExitUsage : 0;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  // A limit on the size of files (ulimit -f) is then an error of write(), told and cleaned up like a full
  // disk.
  std::signal(SIGXFSZ, SIG_IGN);
  Process process{.argc = argc, .argv = argv};
  try {
    CLI::App program(
        "Caravan trains Llama-3-family models on MPI ranks: federated tensor-parallel rounds or "
        "plain training.",
        "caravan");
    const int status = run(program, process);
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
      return report_failure(IoError(kOutputLost));
    }
    return status;
  } catch (const std::exception& error) {
    // fmt throws in the middle of printing and does not say where to.
    return std::ferror(stdout) != 0 ? report_failure(IoError(kOutputLost)) : report_failure(error);
  }
}
