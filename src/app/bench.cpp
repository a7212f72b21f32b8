// caravan bench: what ways of dividing a training step cost and save.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>

#include "bench_report.h"
#include "caravan/comm/mpi_session.h"
#include "caravan/core/atomic_file.h"
#include "caravan/core/build_info.h"
#include "caravan/core/clock.h"
#include "caravan/core/log.h"
#include "commands.h"
#include "failure.h"
#include "kernels/cpu/cpu_backend.h"
#include "machine.h"
#include "versions.h"

namespace caravan::app {
namespace {

namespace fs = std::filesystem;

struct BenchOptions {
  std::string workload = "linear";
  std::int64_t hidden = 4096;
  std::int64_t batch = 32;
  std::int64_t seq_len = 128;
  std::int64_t layers = 0;  // 0: as many as ranks
  std::int64_t steps = 100;
  double timeout_seconds = kCommTimeoutSeconds;
  std::string output = "runs/bench/tp-vs-ddp.h5";
  bool overwrite = false;
};

constexpr std::int64_t kHiddenUnit = 64;

WorkloadSize size_of(const BenchOptions& options, int ranks) {
  if (options.workload == "linear") {
    return {.kind = WorkloadKind::kLinear, .hidden = options.hidden, .batch = options.batch};
  }
  return {.kind = WorkloadKind::kBlock,
          .hidden = options.hidden,
          .batch = options.batch,
          .seq_len = options.seq_len,
          .layers = options.layers > 0 ? options.layers : ranks};
}

std::string report_path(const std::string& output) {
  return fs::path(output).replace_extension(".md").string();
}

void check(const BenchOptions& options) {
  if (options.hidden % kHiddenUnit != 0) {
    fail<ConfigError>("--hidden {}: must be a multiple of {}", options.hidden, kHiddenUnit);
  }
  if (fs::path(options.output).extension() != ".h5") {
    fail<ConfigError>("--output {}: give a name that ends in .h5; the report lies beside it as .md",
                      options.output);
  }
  for (const std::string& path : {options.output, report_path(options.output)}) {
    if (fs::exists(path) && !options.overwrite) {
      fail<ConfigError>("--output {}: exists already; give another name, or --overwrite to replace it", path);
    }
  }
}

/// "AMD EPYC ..., 2 cores"
std::string hardware(int cores) {
  std::ifstream file("/proc/cpuinfo");
  std::string model = "unknown processor";
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) {
      model = line.substr(line.find(':') + 2);
      break;
    }
  }
  return fmt::format("{}, {} core{}", model, cores, cores == 1 ? "" : "s");
}

/// 1, 2, 4, ... and all.
std::vector<int> world_sizes(int ranks) {
  std::vector<int> sizes;
  for (int n = 1; n < ranks; n *= 2) {
    sizes.push_back(n);
  }
  sizes.push_back(ranks);
  return sizes;
}

/// On one rank every division is the same program, which is run once: what was measured, or nothing yet.
std::optional<Measurement> measured_alone(const BenchResults& results, Division division) {
  const auto found = std::find_if(results.fixed.begin(), results.fixed.end(),
                                  [](const Measurement& each) { return each.ranks == 1; });
  if (found == results.fixed.end()) {
    return std::nullopt;
  }
  Measurement alone = *found;
  alone.division = division;
  return alone;
}

/// One division at all world sizes; with `grows` the batch is that of a rank.
void measure_division(Communicator& world, const BenchOptions& options, Division division, bool grows,
                      Backend& backend, BenchResults& results) {
  std::vector<Measurement>& rows = grows ? results.growing : results.fixed;
  const std::size_t first = rows.size();
  for (const int ranks : world_sizes(world.size())) {
    WorkloadSize size = results.size;
    size.batch *= grows ? ranks : 1;
    if (const std::string problem = division_problem(size, division, ranks); !problem.empty()) {
      log::info("{} on {} ranks is left out: {}", division_name(division), ranks, problem);
      continue;
    }
    if (const auto alone = ranks == 1 ? measured_alone(results, division) : std::nullopt) {
      rows.push_back(*alone);
      continue;
    }
    const bool is_timed = ranks <= results.timed_ranks;
    rows.push_back(measure(world, ranks, size, division, is_timed ? options.steps : 0, backend));
    if (!is_timed && world.rank() == 0) {
      model_time(rows.back(), rows.at(first), *results.link);
    }
    if (world.rank() == 0) {
      log::info("{} on {} ranks, {} rows: {:.2f} ms", division_name(division), ranks, size.batch,
                1e3 * percentile(rows.back().seconds, 50));
    }
  }
}

void run(const BenchOptions& options) {
  Communicator& world = MpiSession::current().world();
  agree([&] { check(options); });
  const auto watch = watch_waiting(options.timeout_seconds);
  set_threads(1);
  const std::unique_ptr<Backend> backend = make_cpu_backend();
  const CoreCount cores = count_cores(world);
  BenchResults results{.size = size_of(options, world.size()),
                       .steps = options.steps,
                       .cores = cores.cores,
                       .timed_ranks = cores.ranks};
  if (world.size() > 1) {
    results.link = measure_link(world);
  }
  for (const bool grows : {false, true}) {
    for (const Division division : kDivisions) {
      if (division_problem(results.size, division, 1).empty()) {
        measure_division(world, options, division, grows, *backend, results);
      }
    }
  }
  results.command =
      fmt::format("mpirun -n {} caravan bench tp-vs-ddp --workload {} --hidden {} --batch {}{} --steps {}",
                  world.size(), options.workload, options.hidden, options.batch,
                  options.workload == "block"
                      ? fmt::format(" --seq-len {} --layers {}", results.size.seq_len, results.size.layers)
                      : "",
                  options.steps);
  results.hardware = hardware(results.cores);
  results.commit = build_info().commit;
  results.versions = version_text();
  results.time = utc_timestamp();
  results.hosts = host_names(world);
  agree([&] {
    if (world.rank() == 0) {
      const std::string report = markdown(results);
      fmt::print("{}", report);
      create_folders(folder_of(options.output));
      write_bench(options.output, results);
      write_file_atomically(report_path(options.output), report);
      log::info("results: {} and {}", options.output, report_path(options.output));
    }
  });
}

}  // namespace

void add_bench_command(CLI::App& program) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* bench = program.add_subcommand("bench", "Measure what ways of training on several ranks cost");
  bench->require_subcommand(1);
  CLI::App* command = bench->add_subcommand("tp-vs-ddp",
                                            "Time, traffic and memory of a step divided as TP, TP+SP, DDP, "
                                            "FSDP, CP and PP, on 1, 2, 4, ... ranks up to all. "
                                            "Times beyond the machine's cores are modelled and marked");
  command->add_option("--workload", options->workload, "Two linear layers, or Llama blocks")
      ->check(CLI::IsMember({"linear", "block"}))
      ->capture_default_str();
  command->add_option("--hidden", options->hidden, "Width, a multiple of 64")
      ->check(CLI::Range(std::int64_t{64}, std::int64_t{1} << 16))
      ->capture_default_str();
  command->add_option("--batch", options->batch, "Rows of a step over all ranks")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--seq-len", options->seq_len, "Tokens of a row (block)")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 17))
      ->capture_default_str();
  command
      ->add_option(
          "--layers", options->layers,
          "Blocks (block); 0: as many as ranks, a stage of one each for PP, which is left out on more "
          "ranks than blocks")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 10))
      ->capture_default_str();
  command->add_option("--steps", options->steps, "Timed steps of each case")
      ->check(CLI::Range(std::int64_t{2}, std::int64_t{1} << 20))
      ->capture_default_str();
  add_timeout_option(*command, options->timeout_seconds);
  command->add_option("--output", options->output, "HDF5 file; the report lies beside it as .md")
      ->capture_default_str();
  command->add_flag("--overwrite", options->overwrite, "Replace both files");
  command->footer(
      "Examples:\n"
      "  mpirun -n 8 caravan bench tp-vs-ddp --hidden 4096 --batch 32 --steps 100\n"
      "  mpirun -n 4 caravan bench tp-vs-ddp --workload block --hidden 512 --batch 8 --seq-len 128 --steps "
      "20\n");
  command->callback([options] { run(*options); });
}

}  // namespace caravan::app
