#include "caravan/io/checkpoint_store.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "caravan/core/error.h"
#include "caravan/core/log.h"
#include "caravan/io/checkpoint_files.h"
#include "caravan/io/output_file.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kHead = "step_";
constexpr const char* kRefusedSuffix = ".refused";

std::vector<fs::path> folders_in(const std::string& folder) {
  std::vector<fs::path> found;
  std::error_code error;
  fs::directory_iterator entry(folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    if (fs::is_directory(fs::symlink_status(entry->path()))) {
      found.push_back(entry->path());
    }
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    fail<IoError>("{}: cannot be listed: {}", folder, error.message());
  }
  return found;
}

/// A folder moved aside: back to its name when nothing took its place, else removed.
void settle_aside(const fs::path& aside, const fs::path& place) {
  if (has_manifest(place.string()) || !has_manifest(aside.string())) {
    remove_checkpoint_folder(aside.string());
    return;
  }
  if (fs::exists(fs::symlink_status(place))) {
    remove_checkpoint_folder(place.string());
  }
  std::error_code error;
  fs::rename(aside, place, error);
  if (error) {
    fail<IoError>("{}: cannot get its name {} back: {}", aside.string(), place.filename().string(),
                  error.message());
  }
}

void try_to_remove(const StepFolder& step) {
  try {
    remove_checkpoint_folder(step.path);
  } catch (const IoError& problem) {
    log::warning("checkpoint: {}", problem.what());
  }
}

}  // namespace

std::string step_folder_name(std::int64_t step) {
  return fmt::format("{}{:08}", kHead, step);
}

std::optional<std::int64_t> step_of_folder_name(const std::string& name) {
  if (!name.starts_with(kHead)) {
    return std::nullopt;
  }
  std::int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto [stop, status] = std::from_chars(name.data() + kHead.size(), end, step);
  const bool is_number = status == std::errc() && stop == end && step >= 0;
  return is_number && name == step_folder_name(step) ? std::optional(step) : std::nullopt;
}

std::vector<StepFolder> step_folders(const std::string& folder) {
  std::vector<StepFolder> found;
  for (const fs::path& path : folders_in(folder)) {
    const std::optional<std::int64_t> step = step_of_folder_name(path.filename().string());
    if (step && has_manifest(path.string())) {
      found.push_back({path.string(), *step});
    }
  }
  std::sort(found.begin(), found.end(),
            [](const StepFolder& a, const StepFolder& b) { return a.step > b.step; });
  return found;
}

std::unique_ptr<ShardedCheckpointReader> open_step_folder(const StepFolder& step) {
  auto reader = std::make_unique<ShardedCheckpointReader>(step.path);
  if (reader->state().step != step.step) {
    fail<IoError>("{}: the manifest in it is of step {}; it belongs to another folder", step.path,
                  reader->state().step);
  }
  return reader;
}

LatestCheckpoint find_latest(const std::string& folder) {
  LatestCheckpoint latest;
  for (const StepFolder& step : step_folders(folder)) {
    try {
      std::unique_ptr<ShardedCheckpointReader> reader = open_step_folder(step);
      reader->verify();
      latest.reader = std::move(reader);
      break;
    } catch (const IoError& problem) {
      latest.refused.emplace_back(problem.what());
    }
  }
  return latest;
}

void keep_newest(const std::string& folder, std::int64_t keep, std::int64_t newest) {
  CARAVAN_CHECK(keep >= 1, "{} checkpoints are to be kept", keep);
  std::int64_t kept = 0;
  for (const StepFolder& step : step_folders(folder)) {
    if (step.step > newest) {
      log::info("checkpoint: {} is removed, it lies behind step {} where the run is now", step.path, newest);
      try_to_remove(step);
    } else if (++kept > keep && step.step != newest) {
      try_to_remove(step);
    }
  }
}

void set_aside_later(const std::string& folder, std::int64_t newest) {
  for (const StepFolder& step : step_folders(folder)) {
    if (step.step <= newest) {
      continue;
    }
    std::string aside = step.path + kRefusedSuffix;
    for (int i = 2; fs::exists(fs::symlink_status(aside)); ++i) {
      aside = fmt::format("{}{}-{}", step.path, kRefusedSuffix, i);
    }
    std::error_code error;
    fs::rename(step.path, aside, error);
    if (error) {
      fail<IoError>("{}: cannot be set aside as {}: {}", step.path, aside, error.message());
    }
    log::warning("checkpoint: {} is kept as {}; remove it if it is really of no use", step.path, aside);
  }
}

void sweep_checkpoints(const std::string& folder) {
  for (const fs::path& path : folders_in(folder)) {
    const std::string name = path.filename().string();
    const auto aside = name.rfind(kReplacedSuffix);
    if (aside != std::string::npos && step_of_folder_name(name.substr(0, aside))) {
      settle_aside(path, path.parent_path() / name.substr(0, aside));
    }
  }
  for (const fs::path& path : folders_in(folder)) {
    const std::string name = path.filename().string();
    const bool is_temporary =
        has_temporary_suffix(name) && step_of_folder_name(without_temporary_suffix(name));
    if (is_temporary || (step_of_folder_name(name) && !has_manifest(path.string()))) {
      remove_checkpoint_folder(path.string());
    }
  }
}

}  // namespace caravan
