// Files that come with the project's issues, not with its repository.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>

namespace caravan::test {

/// Set when a case could not run: the program then ends with 77, which ctest shows as skipped, unless a case
/// failed.
inline bool& something_was_skipped() {
  static bool skipped = false;
  return skipped;
}

/// CARAVAN_SHARED, else the folder "shared" beside the repository; nullopt, with a line that says so, when
/// `name` is not in it.
inline std::optional<std::string> shared_path(std::string_view name) {
  const char* shared = std::getenv("CARAVAN_SHARED");
  const char* source = std::getenv("CARAVAN_SOURCE_DIR");
  const std::filesystem::path folder = shared != nullptr   ? std::filesystem::path(shared)
                                       : source != nullptr ? std::filesystem::path(source) / ".." / "shared"
                                                           : std::filesystem::path("../shared");
  if (!std::filesystem::exists(folder / name)) {
    something_was_skipped() = true;
    std::cout << "SKIPPED: " << (folder / name).string() << " is not there\n";
    return std::nullopt;
  }
  return (folder / name).string();
}

}  // namespace caravan::test
