#include "run_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <limits>
#include <thread>

#include "caravan/core/checksum.h"
#include "caravan/core/clock.h"
#include "caravan/core/error.h"
#include "caravan/core/log.h"
#include "caravan/io/checkpoint_store.h"
#include "caravan/io/run_folder_lock.h"
#include "failure.h"
#include "machine.h"
#include "memory.h"

namespace caravan::app {
namespace {

/// Longer than network file systems remember that a file was not there (NFS: 3 s for folders by default).
constexpr std::chrono::seconds kLateFile{10};

}  // namespace

void check_folder_is_shared(const std::string& folder, Communicator& world) {
  std::string expected = world.rank() == 0 ? run_lock_text(folder) : "";
  world.broadcast_bytes(expected, 0);
  agree([&] {
    const StopWatch watch;
    while (world.rank() != 0 && run_lock_text(folder) != expected) {
      if (watch.seconds() > std::chrono::duration<double>(kLateFile).count()) {
        fail<ConfigError>(
            "output.dir {} on {} is not the folder that rank 0 writes to; all ranks write checkpoints into "
            "it: "
            "choose one on a file system that all nodes share",
            folder, host_name());
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  });
}

void check_inputs_survive(const RunConfig& config) {
  namespace fs = std::filesystem;
  const fs::path output = fs::weakly_canonical(config.output.dir);
  const auto check = [&](const char* key, const std::optional<std::string>& path) {
    if (path) {
      const fs::path input = fs::weakly_canonical(*path);
      if (std::mismatch(output.begin(), output.end(), input.begin(), input.end()).first == output.end()) {
        fail<ConfigError>(
            "{} ({}) lies in output.dir ({}), which --overwrite empties; choose another output.dir", key,
            *path, config.output.dir);
      }
    }
  };
  check("model.checkpoint", config.model.checkpoint);
  check("model.config", config.model.config);
  if (resume_choice(config) == Resume::kFolder) {
    check("resume", config.resume);
  }
}

void check_agreement(Communicator& world, const Facts& facts) {
  std::string mine;
  for (const auto& [name, value] : facts) {
    mine += name + '\x1e' + value + '\x1f';
  }
  const std::vector<std::string> all = world.gather_bytes(mine, 0);
  std::string message;
  for (std::size_t rank = 1; rank < all.size() && message.empty(); ++rank) {
    if (all[rank] != all[0]) {
      const auto differs =
          std::mismatch(all[0].begin(), all[0].end(), all[rank].begin(), all[rank].end()).first;
      const auto at = static_cast<std::size_t>(differs - all[0].begin());
      const auto begin = all[0].rfind('\x1f', at);
      const std::size_t start = begin == std::string::npos ? 0 : begin + 1;
      const std::string name = all[0].substr(start, all[0].find('\x1e', start) - start);
      message = fmt::format(
          "rank {} and rank 0 do not agree on the {}; every rank must see the same files and options "
          "(output.dir and model.checkpoint on a shared file system)",
          rank, name);
    }
  }
  world.broadcast_bytes(message, 0);
  if (!message.empty()) {
    throw AgreedError(message, kExitUsage);
  }
}

std::string fact_of(const std::optional<Dataset>& samples) {
  return samples ? checksum_text(samples->checksum()) : "none";
}

std::string fact_of(const std::optional<TokenizerFile>& tokenizer) {
  return tokenizer ? checksum_text(checksum_of(tokenizer->bytes)) : "none";
}

Facts input_facts(const RunInputs& inputs) {
  return {{"training samples", fact_of(inputs.train)},
          {"held-out samples", fact_of(inputs.eval)},
          {"tokenizer", fact_of(inputs.tokenizer_file)}};
}

namespace {

/// One sentence per machine without enough memory, on rank 0. Collective.
std::vector<std::string> shortages(Communicator& world, std::int64_t wanted_bytes) {
  std::vector<RankNeed> ranks;
  for (const std::string& text :
       world.gather_bytes(fmt::format("{} {} {}", available_memory_bytes(), wanted_bytes, host_name()), 0)) {
    RankNeed need;
    const char* const end = text.data() + text.size();
    const auto available = std::from_chars(text.data(), end, need.available_bytes);
    const auto wanted = std::from_chars(available.ptr + 1, end, need.wanted_bytes);
    need.host.assign(wanted.ptr + 1, end);
    ranks.push_back(std::move(need));
  }
  return memory_shortages(ranks);
}

}  // namespace

void warn_about_memory(const RunPlan& plan, HostUse use, Communicator& world) {
  const RankMemory& mine = world.rank() == 0 ? plan.aggregator : plan.trainer;
  for (const std::string& sentence :
       shortages(world, use == HostUse::kEverything ? mine.total() : RankMemory::sum(mine.host))) {
    log::warning("{}", sentence);
  }
}

void require_memory(Communicator& world, std::int64_t wanted_bytes, const std::string& what) {
  std::string message;
  for (const std::string& sentence : shortages(world, wanted_bytes)) {
    message += (message.empty() ? what + ": " : "; ") + sentence;
  }
  world.broadcast_bytes(message, 0);
  if (!message.empty()) {
    throw AgreedError(message, kExitFailure);
  }
}

void check_free_space(const RunPlan& plan, const RunConfig& config, ExistingRun existing,
                      std::int64_t finished) {
  const bool is_federated = config.mode == TrainMode::kFederated;
  std::int64_t count = plan.checkpoints_kept;
  if (is_federated) {
    count -= plan.keeps_every_round ? finished : 0;
    count = finished >= plan.checkpoints_made ? 0 : count;
  } else if (existing == ExistingRun::kResume) {
    const std::string folder = (std::filesystem::path(config.output.dir) / kCheckpointsFolder).string();
    count = std::max<std::int64_t>(1, count - static_cast<std::int64_t>(step_folders(folder).size()));
  }
  if (count <= 0) {
    return;
  }
  const auto one = static_cast<std::uint64_t>(plan.checkpoint_bytes);
  std::uint64_t free = free_bytes(config.output.dir);
  if (free == std::numeric_limits<std::uint64_t>::max()) {
    return;
  }
  free += existing == ExistingRun::kOverwrite ? earlier_results_bytes(config.output.dir) : 0;
  const auto text = [](std::uint64_t bytes) { return format_bytes(static_cast<std::int64_t>(bytes)); };
  if (free < one) {
    fail<IoError>(
        "output.dir {}: {} are free, a checkpoint needs {}; free some space or choose another output.dir",
        config.output.dir, text(free), text(one));
  }
  if (free / one < static_cast<std::uint64_t>(count)) {
    log::warning(
        "output.dir {}: {} are free, enough for {} of {} checkpoints of {}; free some space or set {}",
        config.output.dir, text(free), free / one, count, text(one),
        is_federated ? "federated.save_every_round to false" : "checkpoint.keep to fewer");
  }
}

}  // namespace caravan::app
