#include "machine.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <thread>

#include "caravan/comm/mpi_session.h"
#include "caravan/core/parallel_for.h"
#include "cpu_quota.h"
#include "kernels/cpu/cpu_backend.h"

namespace caravan::app {
namespace {

cpu_set_t usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) {
    for (unsigned core = 0; core < std::max(1U, std::thread::hardware_concurrency()); ++core) {
      CPU_SET(core, &set);
    }
  }
  return set;
}

/// The cores this process may use, divided by the ranks on this machine that may use the same ones: right
/// whether mpirun or Slurm bound ranks to cores, to sockets, or not at all. A quota on processor time counts
/// as that many cores, shared by all ranks of the machine. Collective.
int default_threads() {
  const cpu_set_t mine = usable_cores();
  const int ranks_here = MpiSession::exists() ? MpiSession::current().local_size() : 1;
  const double quota = cpu_quota().value_or(CPU_SETSIZE) / ranks_here;
  const int within_quota = std::max(1, static_cast<int>(std::min<double>(quota, CPU_SETSIZE)));
  const int cores = std::max(1, CPU_COUNT(&mine));
  if (!MpiSession::exists() || MpiSession::current().world().size() == 1) {
    return std::min(cores, within_quota);
  }
  std::string key = host_name() + ' ';
  for (std::size_t core = 0; core < CPU_SETSIZE; ++core) {
    key += CPU_ISSET(core, &mine) ? '1' : '0';
  }
  Communicator& world = MpiSession::current().world();
  std::string all;
  for (const std::string& other : world.gather_bytes(key, 0)) {
    all += other + '\n';
  }
  world.broadcast_bytes(all, 0);
  int sharing = 0;
  for (std::size_t at = all.find(key + '\n'); at != std::string::npos; at = all.find(key + '\n', at + 1)) {
    ++sharing;
  }
  return std::min(std::max(1, cores / std::max(1, sharing)), within_quota);
}

}  // namespace

int usable_core_count() {
  const cpu_set_t mine = usable_cores();
  return std::max(1, std::min(CPU_COUNT(&mine), static_cast<int>(cpu_quota().value_or(CPU_SETSIZE))));
}

void set_threads(std::optional<std::int64_t> wanted) {
  const char* blas = std::getenv("OPENBLAS_NUM_THREADS");
  const int from_environment = blas != nullptr ? std::atoi(blas) : 0;
  if (wanted) {
    set_cpu_threads(static_cast<int>(*wanted));
  } else {
    set_cpu_threads(from_environment > 0 ? from_environment : default_threads());
  }
}

int threads() {
  return thread_count();
}

std::string host_name() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

std::string host_names(Communicator& world) {
  std::string all;
  std::vector<std::string> seen;
  for (const std::string& host : world.gather_bytes(host_name(), 0)) {
    if (std::find(seen.begin(), seen.end(), host) == seen.end()) {
      seen.push_back(host);
      all += (all.empty() ? "" : ",") + host;
    }
  }
  return all;
}

}  // namespace caravan::app
