// What caravan bench leaves: an HDF5 file (results/README.md) and a Markdown report.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bench_measure.h"

namespace caravan::app {

struct BenchResults {
  WorkloadSize size;
  std::int64_t steps = 0;
  int cores = 1;                          // of all machines
  int timed_ranks = 1;                    // so many have a core each; more are modelled
  std::optional<Link> link = {};          // absent on one rank
  std::vector<Measurement> fixed = {};    // `batch` rows on any number of ranks
  std::vector<Measurement> growing = {};  // `batch` rows per rank
  std::string command = {}, hardware = {}, commit = {}, versions = {}, hosts = {}, time = {};
};

/// Weak-scaling efficiency: the time of one rank in units of this one's, both with `batch` rows per rank.
double efficiency(const BenchResults& results, const Measurement& growing);

std::string markdown(const BenchResults& results);
/// Written whole or not at all; the folder exists. Throws IoError.
void write_bench(const std::string& path, const BenchResults& results);

}  // namespace caravan::app
