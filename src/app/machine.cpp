#include "machine.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
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

/// A character for every core: '1' where it is in the set, else '0'.
std::string core_list(const cpu_set_t& set) {
  std::string list;
  for (std::size_t core = 0; core < CPU_SETSIZE; ++core) {
    list += CPU_ISSET(core, &set) ? '1' : '0';
  }
  return list;
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
  const std::string key = host_name() + ' ' + core_list(mine);
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

CoreCount count_cores(Communicator& world) {
  // mpirun binds two ranks to a core each where nobody tells it otherwise: neither knows of the other's.
  const std::vector<std::string> hosts = world.gather_bytes(host_name(), 0);
  const std::vector<std::string> lists = world.gather_bytes(core_list(usable_cores()), 0);
  const std::vector<std::string> quotas =
      world.gather_bytes(std::to_string(static_cast<int>(cpu_quota().value_or(CPU_SETSIZE))), 0);
  struct Host {
    std::string cores = std::string(CPU_SETSIZE, '0');
    std::int64_t ranks = 0;
    std::int64_t quota = CPU_SETSIZE;
    std::int64_t usable() const {
      return std::max<std::int64_t>(1, std::min(std::count(cores.begin(), cores.end(), '1'), quota));
    }
  };
  std::map<std::string, Host> by_name;
  for (std::size_t rank = 0; rank < hosts.size(); ++rank) {
    Host& host = by_name[hosts[rank]];
    std::transform(host.cores.begin(), host.cores.end(), lists[rank].begin(), host.cores.begin(),
                   [](char a, char b) { return std::max(a, b); });
    host.quota = std::min<std::int64_t>(host.quota, std::stoi(quotas[rank]));
  }
  std::int64_t cores = 0;
  for (const auto& [name, host] : by_name) {
    cores += host.usable();
  }
  std::int64_t ranks = 0;
  for (const std::string& name : hosts) {
    Host& host = by_name[name];
    if (++host.ranks > host.usable()) {
      break;
    }
    ++ranks;
  }
  return {static_cast<int>(world.all_reduce_value(std::max<std::int64_t>(ranks, 1), ReduceOp::kMax)),
          static_cast<int>(world.all_reduce_value(std::max<std::int64_t>(cores, 1), ReduceOp::kMax))};
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
