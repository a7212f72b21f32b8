#include <fcntl.h>
#include <unistd.h>

#include <filesystem>

#include "caravan/io/yaml_config.h"
#include "fuzz/fuzz_entries.h"

namespace caravan::fuzz {
namespace {

/// A configuration names files to include; here it finds none, and no terminal to wait for.
void leave_for_an_empty_folder() {
  static const bool is_done = [] {
    std::string folder = (std::filesystem::temp_directory_path() / "fuzz_yaml_XXXXXX").string();
    const int nothing = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    return ::mkdtemp(folder.data()) != nullptr && ::chdir(folder.c_str()) == 0 &&
           ::rmdir(folder.c_str()) == 0 && nothing >= 0 && ::dup2(nothing, STDIN_FILENO) >= 0;
  }();
  require(is_done, "an empty folder can be made");
}

}  // namespace

void yaml(Bytes input) {
  leave_for_an_empty_folder();
  constexpr std::size_t kHundredProblems = 110'000;  // bytes of a message that tells so many
  const std::string text(text_of(input));
  RunConfig config;
  if (!accepted([&] { config = parse_run_config(text, "input.yaml", {}); }, kHundredProblems)) {
    return;
  }
  require(parse_run_config(to_yaml(config), "written.yaml", {}) == config,
          "a configuration survives writing and reading");
}

}  // namespace caravan::fuzz
