#include "caravan/io/checkpoint_files.h"

#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <filesystem>

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr std::array kPatterns = {"caravan.json",
                                  "params.json",
                                  "consolidated.*.pth",
                                  "config.json",
                                  "generation_config.json",
                                  "tokenizer.model",
                                  "tokenizer.json",
                                  "tokenizer_config.json",
                                  "special_tokens_map.json",
                                  "*.safetensors",
                                  "model.safetensors.index.json"};

}  // namespace

bool is_checkpoint_file_name(const std::string& name) {
  return std::any_of(kPatterns.begin(), kPatterns.end(),
                     [&](const char* pattern) { return ::fnmatch(pattern, name.c_str(), 0) == 0; });
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

}  // namespace caravan
