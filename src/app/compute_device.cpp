#include "compute_device.h"

#include <fmt/format.h>

#include <string>
#include <vector>

#include "caravan/comm/mpi_session.h"
#include "caravan/core/log.h"
#include "failure.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/device_streams.h"
#include "machine.h"

namespace caravan::app {
namespace {

/// One text of every rank, on every rank.
std::vector<std::string> texts_of_ranks(Communicator& world, const std::string& mine) {
  std::string all;
  for (const std::string& text : world.gather_bytes(mine, 0)) {
    all += text + '\0';
  }
  world.broadcast_bytes(all, 0);
  std::vector<std::string> texts;
  for (std::size_t at = 0; at < all.size(); at = all.find('\0', at) + 1) {
    texts.emplace_back(all.c_str() + at);
  }
  return texts;
}

std::string rank_on(std::size_t rank, const std::string& host, const Communicator& world) {
  return world.size() == 1 ? "" : fmt::format("rank {} on {}: ", rank, host);
}

int local_rank() {
  return MpiSession::exists() ? MpiSession::current().local_rank() : 0;
}

void check_same_type(const ComputeDevice& device, Communicator& world) {
  const std::vector<std::string> names = texts_of_ranks(world, device.gpu.runtime->facts().name);
  for (std::size_t rank = 1; rank < names.size(); ++rank) {
    if (names[rank] != names[0]) {
      throw AgreedError(
          fmt::format(
              "rank 0 computes on '{}' and rank {} on '{}': all ranks of a run need GPUs of one type; "
              "choose them with CUDA_VISIBLE_DEVICES, or with a constraint of the batch system",
              names[0], rank, names[rank]),
          kExitFailure);
    }
  }
}

}  // namespace

std::string reason_of_first_rank(Communicator& world, const std::string& mine) {
  const std::vector<std::string> hosts = texts_of_ranks(world, host_name());
  const std::vector<std::string> reasons = texts_of_ranks(world, mine);
  for (std::size_t rank = 0; rank < reasons.size(); ++rank) {
    if (!reasons[rank].empty()) {
      return rank_on(rank, hosts[rank], world) + reasons[rank];
    }
  }
  return "";
}

ComputeDevice open_compute_device(DeviceChoice choice, DType dtype, Communicator& world) {
  ComputeDevice device;
  device.host = make_cpu_backend();
  const bool is_for_cpus = choice == DeviceChoice::kAuto && dtype == DType::kFloat64;
  if (choice == DeviceChoice::kCpu || is_for_cpus) {
    return device;
  }
  const cuda::DeviceCount found = cuda::count_devices();
  std::string problem = found.reason_for_none;
  if (found.count > 0) {
    try {
      device.gpu = cuda::open_device(local_rank() % found.count);
      device.gpu_of_job =
          fmt::format("{} {}", host_name(), cuda::make_device_streams(*device.gpu.runtime)->bus_id());
      device.memory_of_job = fmt::format("{} {}", host_name(), device.gpu.runtime->facts().memory_id);
    } catch (const DeviceError& error) {
      problem = error.what();
    }
  }
  const std::string reason = reason_of_first_rank(world, problem);
  if (reason.empty()) {
    check_same_type(device, world);
    return device;
  }
  device.gpu.backend.reset();
  device.gpu.runtime.reset();
  if (choice == DeviceChoice::kCuda) {
    throw AgreedError("device: cuda: " + reason, kExitFailure);
  }
  if (accumulation_dtype(dtype) != dtype) {
    throw AgreedError(fmt::format("dtype: {} is for GPUs; {}, and dtype: float32", dtype_name(dtype), reason),
                      kExitFailure);
  }
  const std::int64_t is_unexpected = found.count > 0 || found.is_broken ? 1 : 0;
  const bool is_said = world.all_reduce_value(is_unexpected, ReduceOp::kMax) > 0;
  if (is_said && world.rank() == 0) {  // the same for all
    log::warning("device: auto: all ranks compute on CPUs, since not every rank has a GPU; {}", reason);
  }
  return device;
}

DeviceKind configured_kind(DeviceChoice choice, DType dtype) {
  const bool has_16_bits = accumulation_dtype(dtype) != dtype;
  return choice == DeviceChoice::kCuda || has_16_bits ? DeviceKind::kCuda : DeviceKind::kCpu;
}

namespace {

/// The ranks on this rank's GPU, and what all of them will hold there.
struct SharedNeed {
  int ranks = 0;
  std::int64_t bytes = 0;
};

/// Ranks differ: one may have more to hold than the others. Not by the GPUs that a process counts: a batch
/// system may show each rank one of its own, or all of them the same. Collective.
SharedNeed need_on_gpu(const std::string& gpu, std::int64_t mine, Communicator& world) {
  const std::vector<std::string> gpus = texts_of_ranks(world, gpu);
  const std::vector<std::string> bytes = texts_of_ranks(world, fmt::format("{}", mine));
  SharedNeed need;
  for (std::size_t rank = 0; rank < gpus.size(); ++rank) {
    if (gpus[rank] == gpu) {
      ++need.ranks;
      need.bytes += std::stoll(bytes[rank]);
    }
  }
  return need;
}

/// Why what its ranks will hold on the GPU, `mine` on this one, has no room there; empty when it has.
std::string shortage(const ComputeDevice& device, const RankMemory& mine, const SharedNeed& need,
                     const std::string& remedy) {
  const cuda::DeviceFacts& facts = device.gpu.runtime->facts();
  if (need.bytes <= facts.free_bytes) {
    return "";
  }
  std::string categories;
  for (const auto& [name, bytes] : mine.device) {
    if (bytes > 0) {
      categories += fmt::format("{}{} {}", categories.empty() ? "" : ", ", name, format_bytes(bytes));
    }
  }
  const bool is_alone = need.ranks == 1;
  return fmt::format(
      "GPU {} ({}) is too small: {} are free of {}, and {} will hold {} on it{} ({}); {}", facts.index,
      facts.name, format_bytes(facts.free_bytes), format_bytes(facts.memory_bytes),
      is_alone ? "this rank" : fmt::format("its {} ranks", need.ranks), format_bytes(need.bytes),
      is_alone ? "" : fmt::format(", this one {}", format_bytes(RankMemory::sum(mine.device))), categories,
      remedy);
}

}  // namespace

void add_library_memory(const ComputeDevice& device, RankMemory& memory) {
  const std::int64_t bytes = device.is_gpu() ? device.gpu.runtime->facts().workspace_bytes : 0;
  if (bytes > 0) {
    memory.device.emplace_back("workspace of products", bytes);
  }
}

std::string training_remedy(TrainMode mode) {
  return mode == TrainMode::kFederated ? "lower federated.batch_size, training.micro_batch or "
                                         "data.max_seq_len, set training.recompute, or "
                                         "use more GPUs"
                                       : "lower training.micro_batch or data.max_seq_len, set "
                                         "training.recompute, parallel.cpu_offload or "
                                         "parallel.zero_stage: 3, or use more GPUs";
}

void require_device_memory(const ComputeDevice& device, const RankMemory& mine, const std::string& remedy,
                           Communicator& world) {
  if (!device.is_gpu()) {
    return;  // nor is any other rank on one
  }
  const SharedNeed need = need_on_gpu(device.memory_of_job, RankMemory::sum(mine.device), world);
  const std::string reason = reason_of_first_rank(world, shortage(device, mine, need, remedy));
  if (!reason.empty()) {
    throw AgreedError(reason, kExitFailure);
  }
}

}  // namespace caravan::app
