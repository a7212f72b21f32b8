#include "caravan/io/run_folder.h"

#include <fnmatch.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <limits>
#include <utility>
#include <vector>

#include "caravan/core/atomic_file.h"
#include "caravan/core/error.h"
#include "caravan/core/log.h"
#include "caravan/io/checkpoint_files.h"
#include "caravan/io/checkpoint_store.h"
#include "caravan/io/output_file.h"
#include "caravan/io/results_file.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

// ---- the only list of what a run writes

constexpr std::array kResultPatterns = {kResultsFileName, "eval_res_llama32_ws[0-9]*_r[0-9]*.txt"};
// The model after a round, and the state of training after a step (io/checkpoint_store.h).
constexpr std::array kCheckpointPatterns = {"*_ws[0-9]*_lr*_round[0-9]*", "step_[0-9]*"};
constexpr std::size_t kSuffixLetters = 6;
constexpr const char* kRemovalSuffix = ".tmp-remove";  // matches kTemporarySuffixPattern
constexpr const char* kStateSuffix = ".state";

template <std::size_t N>
bool matches(const std::string& name, const std::array<const char*, N>& patterns) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const char* pattern) { return ::fnmatch(pattern, name.c_str(), 0) == 0; });
}

bool is_temporary_result(const std::string& name) {
  return has_temporary_suffix(name) && matches(without_temporary_suffix(name), kResultPatterns);
}

bool is_plain_folder(const fs::path& path) {
  return fs::is_directory(fs::symlink_status(path));
}

/// Unfinished, or replaced by a newer one. On a file system that cannot exchange names a process that died
/// between two renames leaves a replaced folder without a newer one: that is the checkpoint then.
bool is_superseded(const fs::path& checkpoint) {
  const std::string name = checkpoint.filename().string();
  const auto at = name.rfind(kReplacedSuffix);
  const bool is_replaced =
      at != std::string::npos && at + std::strlen(kReplacedSuffix) + kSuffixLetters == name.size();
  return has_temporary_suffix(name) ||
         (is_replaced && fs::exists(fs::symlink_status(checkpoint.parent_path() / name.substr(0, at))));
}

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::error_code error;
  std::vector<fs::path> entries;
  fs::directory_iterator entry(folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    entries.push_back(entry->path());
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    fail<IoError>("{}: cannot be listed: {}", folder.string(), error.message());
  }
  std::sort(entries.begin(), entries.end());
  return entries;
}

std::vector<fs::path> checkpoint_folders(const fs::path& folder) {
  std::vector<fs::path> found;
  const fs::path parent = folder / kCheckpointsFolder;
  if (is_plain_folder(parent)) {
    for (const fs::path& entry : entries_of(parent)) {
      if (is_plain_folder(entry) && matches(entry.filename().string(), kCheckpointPatterns)) {
        found.push_back(entry);
      }
    }
  }
  return found;
}

void remove_one(const fs::path& path) {
  std::error_code error;
  fs::remove(path, error);
  if (error) {
    fail<IoError>("{}: the earlier run's file cannot be removed: {}", path.string(), error.message());
  }
}

void remove_results(const fs::path& folder) {
  for (const fs::path& checkpoint : checkpoint_folders(folder)) {
    remove_checkpoint_folder(checkpoint.string());
  }
  const fs::path parent = folder / kCheckpointsFolder;
  if (is_plain_folder(parent) && entries_of(parent).empty()) {
    remove_one(parent);
  }
  // results.h5 goes last: a removal cut short still leaves a folder that says it holds results.
  std::vector<fs::path> entries = entries_of(folder);
  std::stable_partition(entries.begin(), entries.end(),
                        [](const fs::path& entry) { return entry.filename() != kResultsFileName; });
  for (const fs::path& entry : entries) {
    if (matches(entry.filename().string(), kResultPatterns) && !is_plain_folder(entry)) {
      remove_one(entry);
    }
  }
}

void remove_temporaries(const fs::path& folder) {
  for (const fs::path& entry : entries_of(folder)) {
    if (is_temporary_result(entry.filename().string()) && !is_plain_folder(entry)) {
      remove_one(entry);
    }
  }
  for (const fs::path& checkpoint : checkpoint_folders(folder)) {
    const std::string path = checkpoint.string();
    // The state of a round is written before its checkpoint and removed after it.
    const bool is_orphan =
        path.ends_with(kStateSuffix) && !fs::exists(path.substr(0, path.size() - std::strlen(kStateSuffix)));
    if (is_superseded(checkpoint) || is_orphan) {
      remove_checkpoint_folder(checkpoint.string());
    }
  }
  sweep_checkpoints((folder / kCheckpointsFolder).string());
}

void remove_at_once(const std::string& folder) {
  const std::string doomed = folder + kRemovalSuffix;
  std::error_code error;
  fs::remove_all(doomed, error);
  if (!error) {
    fs::rename(folder, doomed, error);
  }
  if (!error) {
    fs::remove_all(doomed, error);
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    fail<IoError>("{}: the older checkpoint cannot be removed: {}", folder, error.message());
  }
}

std::uint64_t file_bytes(const fs::path& path) {
  std::error_code ignored;
  const bool counts = fs::is_regular_file(fs::symlink_status(path, ignored));
  const std::uintmax_t bytes = counts ? fs::file_size(path, ignored) : 0;
  return ignored ? 0 : bytes;
}

fs::path nearest_existing(const std::string& path) {
  std::error_code error;
  fs::path place = fs::absolute(path, error).lexically_normal();
  while (!fs::exists(place, error) && place.has_parent_path() && place != place.parent_path()) {
    place = place.parent_path();
  }
  return place;
}

}  // namespace

bool holds_results(const std::string& folder) {
  if (!fs::is_directory(folder)) {
    return false;
  }
  const std::vector<fs::path> entries = entries_of(folder);
  return std::any_of(
             entries.begin(), entries.end(),
             [](const fs::path& entry) { return matches(entry.filename().string(), kResultPatterns); }) ||
         !checkpoint_folders(folder).empty();
}

void check_run_folder(const std::string& folder, ExistingRun existing) {
  if (folder.empty()) {
    fail<ConfigError>("output.dir is empty; give the folder for the results");
  }
  const fs::path place = nearest_existing(folder);
  if (!fs::is_directory(place)) {
    fail<IoError>("output.dir {}: {} is not a folder", folder, place.string());
  }
  if (::access(place.c_str(), W_OK | X_OK) != 0) {
    fail<IoError>("output.dir {}: {} cannot be written: {}", folder, place.string(), std::strerror(errno));
  }
  if (existing == ExistingRun::kRefuse && holds_results(folder)) {
    fail<ConfigError>(
        "output.dir {} already holds the results of a run; give another folder, --overwrite to replace them, "
        "or "
        "resume: latest to go on",
        folder);
  }
}

void create_run_folder(const std::string& folder) {
  create_folders(folder);
}

void prepare_run_folder(const std::string& folder, ExistingRun existing) {
  check_run_folder(folder, existing);
  create_run_folder(folder);
  // access() does not see quotas, full disks and read-only mounts of some network file systems.
  const std::string probe = (fs::path(folder) / fmt::format(".write_test.{}", ::getpid())).string();
  write_file_atomically(probe, "caravan");
  remove_one(probe);
  if (existing == ExistingRun::kOverwrite) {
    remove_results(folder);
  }
  remove_temporaries(folder);
}

std::optional<FoundCheckpoint> latest_checkpoint(const std::string& folder) {
  std::optional<FoundCheckpoint> latest;
  std::int64_t most = -1;
  for (const fs::path& checkpoint : checkpoint_folders(folder)) {
    const std::string path = checkpoint.string();
    if (is_superseded(checkpoint) || !has_run_record(path)) {
      continue;
    }
    RunRecord record = read_run_record(path);
    const std::int64_t finished = record.round ? *record.round : *record.step;
    if (finished > most) {
      most = finished;
      latest = FoundCheckpoint{path, std::move(record)};
    }
  }
  return latest;
}

std::uint64_t free_bytes(const std::string& path) {
  std::error_code error;
  const fs::path place = nearest_existing(path);
  const fs::space_info space = fs::space(place, error);
  if (error) {
    fail<IoError>("{}: the free space is not known: {}", place.string(), error.message());
  }
  // File systems without a size of their own (overlays of some kinds, quotas kept elsewhere) say 0 of 0.
  return space.capacity == 0 ? std::numeric_limits<std::uint64_t>::max() : space.available;
}

std::string round_state_folder(const std::string& checkpoint_folder) {
  return checkpoint_folder + kStateSuffix;
}

void remove_run_checkpoint(const std::string& checkpoint_folder) {
  remove_at_once(checkpoint_folder);
  remove_at_once(round_state_folder(checkpoint_folder));
}

void remove_renamed_checkpoints(const std::string& checkpoint_folder) {
  const fs::path kept(checkpoint_folder);
  const std::string name = kept.filename().string();
  const std::size_t world_size = name.rfind("_ws") + std::strlen("_ws");
  const std::string begin = name.substr(0, world_size);
  const std::string end = name.substr(name.rfind("_round"));
  for (const fs::path& entry : entries_of(kept.parent_path())) {
    const std::string other = entry.filename().string();
    if (other == name || !is_plain_folder(entry) || other.size() <= begin.size() + end.size() ||
        !other.starts_with(begin) || !other.ends_with(end)) {
      continue;
    }
    const std::string between = other.substr(begin.size(), other.size() - begin.size() - end.size());
    // "<ranks>_lr<rate>": another name may begin like this one.
    if (std::count(between.begin(), between.end(), '_') == 1 &&
        ::fnmatch("[0-9]*_lr[0-9]*", between.c_str(), 0) == 0) {
      remove_run_checkpoint(entry.string());
    }
  }
}

std::uint64_t earlier_results_bytes(const std::string& folder) {
  if (!fs::is_directory(folder)) {
    return 0;
  }
  std::uint64_t total = 0;
  for (const fs::path& entry : entries_of(folder)) {
    total += matches(entry.filename().string(), kResultPatterns) ? file_bytes(entry) : 0;
  }
  for (const fs::path& checkpoint : checkpoint_folders(folder)) {
    for (const fs::path& entry : entries_of(checkpoint)) {
      total += is_checkpoint_file_name(entry.filename().string()) ? file_bytes(entry) : 0;
    }
  }
  return total;
}

}  // namespace caravan
