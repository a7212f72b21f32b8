#include "machine.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "caravan/comm/mpi_session.h"
#include "caravan/core/parallel_for.h"
#include "kernels/cpu/cpu_backend.h"

namespace caravan::app {
namespace {

/// Cores this process may run on: mpirun or Slurm may have bound it.
int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    return std::max(1, CPU_COUNT(&set));
  }
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int default_threads() {
  if (const char* value = std::getenv("OPENBLAS_NUM_THREADS"); value != nullptr && std::atoi(value) > 0) {
    return std::atoi(value);
  }
  const int cores = usable_cores();
  const int machine = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  // A bound rank has its own cores already; an unbound one shares the machine with the other ranks on it.
  return cores < machine ? cores : std::max(1, cores / local_ranks());
}

}  // namespace

void set_threads(std::optional<std::int64_t> wanted) {
  set_cpu_threads(wanted ? static_cast<int>(*wanted) : default_threads());
}

int threads() {
  return thread_count();
}

std::unique_ptr<Backend> make_backend() {
  return make_cpu_backend();
}

std::int64_t available_memory_bytes() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  std::int64_t kibibytes = 0;
  std::string unit;
  while (file >> key >> kibibytes) {
    std::getline(file, unit);
    if (key == "MemAvailable:") {
      return kibibytes * 1024;
    }
  }
  return 0;
}

int local_ranks() {
  return MpiSession::exists() ? MpiSession::current().local_size() : 1;
}

std::string host_names(Communicator& world) {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  std::string all;
  std::vector<std::string> seen;
  for (const std::string& host : world.gather_bytes(name.data(), 0)) {
    if (std::find(seen.begin(), seen.end(), host) == seen.end()) {
      seen.push_back(host);
      all += (all.empty() ? "" : ",") + host;
    }
  }
  return all;
}

}  // namespace caravan::app
