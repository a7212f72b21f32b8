#include "caravan/comm/device_comm.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <utility>
#include <vector>

#include "caravan/comm/nccl_communicator.h"
#include "caravan/comm/self_communicator.h"
#include "caravan/core/error.h"

namespace caravan {
namespace {

std::string_view name_of(CommBackend backend) {
  return backend == CommBackend::kAuto ? "auto" : backend == CommBackend::kNccl ? "nccl" : "mpi";
}

std::string_view environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

/// Every rank's text, on every rank. Collective.
std::vector<std::string> all_texts(Communicator& world, const std::string& mine) {
  std::vector<std::string> texts = world.gather_bytes(mine, 0);
  texts.resize(static_cast<std::size_t>(world.size()));
  for (std::string& text : texts) {
    world.broadcast_bytes(text, 0);
  }
  return texts;
}

/// Why NCCL cannot be used, the same sentence on every rank; empty when it can. Collective.
std::string why_no_nccl(Communicator& world, const NcclSearch& search) {
  const std::vector<std::string> versions =
      all_texts(world, search.library != nullptr ? search.library->version() : "");
  const std::int64_t lacking = world.all_reduce_value(
      std::int64_t{search.library != nullptr ? world.size() : world.rank()}, ReduceOp::kMin);
  if (lacking < world.size()) {
    std::string reason = search.why_none();
    world.broadcast_bytes(reason, static_cast<int>(lacking));
    return fmt::format("rank {} found {}", lacking, reason);
  }
  for (std::size_t r = 1; r < versions.size(); ++r) {
    if (versions[r] != versions[0]) {
      return fmt::format("rank 0 has NCCL {} and rank {} has {}: all ranks need one version", versions[0], r,
                         versions[r]);
    }
  }
  return "";
}

DeviceComm over_mpi(const std::string& reason) {
  const DevicePath path = mpi_device_path();
  return {.nccl = nullptr,
          .path = path,
          .description = fmt::format("MPI {}{}",
                                     path == DevicePath::kDirect ? "reading device memory (CUDA-aware)"
                                                                 : "through pinned host memory",
                                     reason.empty() ? "" : fmt::format(" ({})", reason))};
}

}  // namespace

std::optional<CommBackend> comm_backend_of_environment() {
  const std::string_view text = environment("COMM_BACKEND");
  if (text.empty()) {
    return std::nullopt;
  }
  for (const CommBackend backend : {CommBackend::kAuto, CommBackend::kNccl, CommBackend::kMpi}) {
    if (text == name_of(backend)) {
      return backend;
    }
  }
  fail<ConfigError>("COMM_BACKEND is '{}'; tensors travel by nccl or mpi: set it to auto, nccl or mpi", text);
}

WantedCommBackend wanted_comm_backend(CommBackend key) {
  const CommBackend asked = comm_backend_of_environment().value_or(CommBackend::kAuto);
  if (key == CommBackend::kAuto || asked == CommBackend::kAuto || key == asked) {
    return {key == CommBackend::kAuto ? asked : key, ""};
  }
  return {key,
          fmt::format("comm.backend is {}, COMM_BACKEND is {}: the key holds", name_of(key), name_of(asked))};
}

DeviceComm choose_device_comm(CommBackend wanted, Communicator& world, const std::string& gpu) {
  if (world.size() == 1) {
    return {.nccl = nullptr, .path = DevicePath::kThroughHost, .description = "one rank"};
  }
  const std::vector<std::string> gpus = all_texts(world, gpu);
  if (wanted == CommBackend::kMpi) {
    return over_mpi("");
  }
  const auto sharing = [&](const std::string& one) { return std::count(gpus.begin(), gpus.end(), one); };
  const bool is_shared =
      std::any_of(gpus.begin(), gpus.end(), [&](const std::string& each) { return sharing(each) > 1; });
  const NcclSearch search = find_nccl();
  const std::string reason = why_no_nccl(world, search);
  if (wanted == CommBackend::kAuto && is_shared) {
    return over_mpi("ranks share a GPU; comm.backend: nccl tries NCCL all the same");
  }
  if (!reason.empty()) {
    if (wanted == CommBackend::kNccl) {
      fail<CommError>(
          "comm.backend is nccl, but {}; set CARAVAN_NCCL to libnccl.so.2 or its folder, or comm.backend to "
          "mpi",
          reason);
    }
    return over_mpi(reason);
  }
  if (sharing(gpu) > 1) {
    // NCCL refuses two ranks of one machine on one GPU: these look like ranks of different machines.
    setenv("NCCL_HOSTID", fmt::format("caravan-rank-{}", world.rank()).c_str(), 0);
  }
  return {.nccl = search.library,
          .path = mpi_device_path(),
          .description = fmt::format("NCCL {} ({}){}", search.library->version(), search.library->path(),
                                     is_shared ? ", ranks share a GPU" : "")};
}

std::unique_ptr<Communicator> make_device_group(std::unique_ptr<Communicator> host, DeviceStreams& device,
                                                const DeviceComm& comm) {
  if (host->size() == 1) {
    return std::make_unique<SelfCommunicator>(device);
  }
  const std::string name = host->name();
  std::unique_ptr<Communicator> group;
  if (comm.nccl != nullptr) {
    group = std::make_unique<NcclCommunicator>(std::move(host), device, comm.nccl, comm.path);
  } else {
    group = std::make_unique<StagedCommunicator>(std::move(host), device, comm.path);
  }
  group->set_name(name);
  return group;
}

}  // namespace caravan
