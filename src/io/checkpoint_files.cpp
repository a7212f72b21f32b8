#include "caravan/io/checkpoint_files.h"

#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <system_error>
#include <vector>

#include "caravan/core/atomic_file.h"
#include "caravan/core/error.h"
#include "caravan/core/log.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

// What makes a folder a checkpoint.
constexpr std::array kRecords = {"caravan.json", "manifest.json"};
constexpr std::array kPatterns = {
    "caravan.json",          "manifest.json",           "params.json",     "consolidated.*.pth",
    "config.json",           "generation_config.json",  "tokenizer.model", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "*.safetensors",   "model.safetensors.index.json"};

// What a killed process leaves behind, as fnmatch takes it; the first is the one of older versions.
constexpr std::array kTemporarySuffixes = {".[0-9]*.tmp", kTemporarySuffixPattern};

template <std::size_t N>
bool matches(const std::string& name, const std::array<const char*, N>& patterns) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const char* pattern) { return ::fnmatch(pattern, name.c_str(), 0) == 0; });
}

void remove_one(const fs::path& path) {
  std::error_code error;
  fs::remove(path, error);
  if (error) {
    fail<IoError>("{}: cannot be removed: {}", path.string(), error.message());
  }
}

}  // namespace

bool is_checkpoint_file_name(const std::string& name) {
  return matches(name, kPatterns);
}

std::string foreign_entry(const std::string& folder) {
  if (!fs::is_directory(fs::symlink_status(folder))) {
    return folder;
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (!entry.is_regular_file() || !is_checkpoint_file_name(entry.path().filename().string())) {
      return entry.path().string();
    }
  }
  return {};
}

bool has_temporary_suffix(const std::string& name) {
  return std::any_of(kTemporarySuffixes.begin(), kTemporarySuffixes.end(), [&](const char* suffix) {
    return ::fnmatch((std::string("*") + suffix).c_str(), name.c_str(), 0) == 0;
  });
}

std::string without_temporary_suffix(const std::string& name) {
  for (const char* suffix : {".tmp-", ".tmp"}) {
    if (const auto at = name.rfind(suffix); at != std::string::npos && has_temporary_suffix(name)) {
      const std::string stem = name.substr(0, at);
      return *(suffix + 4) == '-' ? stem : stem.substr(0, stem.rfind('.'));
    }
  }
  return name;
}

void remove_checkpoint_folder(const std::string& folder) {
  bool has_record = false;
  for (const char* record : kRecords) {
    const fs::path path = fs::path(folder) / record;
    if (fs::exists(fs::symlink_status(path))) {
      remove_one(path);
      has_record = true;
    }
  }
  if (has_record) {
    flush_folder(folder);  // gone before the first weight is
  }
  std::vector<fs::path> entries;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    entries.push_back(entry.path());
  }
  if (error) {
    fail<IoError>("{}: cannot be listed: {}", folder, error.message());
  }
  bool is_emptied = true;
  for (const fs::path& entry : entries) {
    const std::string name = entry.filename().string();
    const bool is_ours =
        is_checkpoint_file_name(name) || is_checkpoint_file_name(without_temporary_suffix(name));
    if (is_ours && !fs::is_directory(fs::symlink_status(entry))) {
      remove_one(entry);
    } else {
      log::warning("{}: not written by a run, kept", entry.string());
      is_emptied = false;
    }
  }
  if (is_emptied) {
    remove_one(folder);
  }
}

}  // namespace caravan
