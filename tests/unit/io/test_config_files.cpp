// The configurations and the key list that the repository ships cannot drift from the code.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "caravan/core/error.h"
#include "caravan/io/yaml_config.h"

using namespace caravan;

namespace {

namespace fs = std::filesystem;

fs::path source_folder() {
  const char* folder = std::getenv("CARAVAN_SOURCE_DIR");
  return folder != nullptr ? folder : ".";
}

}  // namespace

TEST_CASE("every shipped configuration can be read, given a checkpoint where it needs one", "[io][config]") {
  int count = 0;
  for (const auto& entry : fs::recursive_directory_iterator(source_folder() / "configs")) {
    if (entry.path().extension() != ".yaml") {
      continue;
    }
    ++count;
    INFO(entry.path());
    try {
      load_run_config(entry.path().string(), {});
    } catch (const ConfigError& error) {
      CHECK(std::string(error.what()).find("model: no weights: give model.checkpoint") != std::string::npos);
      CHECK_NOTHROW(load_run_config(entry.path().string(), {"model.checkpoint=DIR"}));
    }
  }
  CHECK(count >= 2);
}

TEST_CASE("the documented 3B run has the settings its comments promise", "[io][config]") {
  const std::string path = (source_folder() / "configs/train/llama3.2-3b-federated.yaml").string();
  RunConfig config = load_run_config(path, {"model.checkpoint=DIR"});
  RunConfig defaults;
  defaults.model.checkpoint = "DIR";
  defaults.data.train = config.data.train;
  defaults.data.eval = config.data.eval;
  defaults.output.dir = config.output.dir;
  CHECK(config == defaults);
}

TEST_CASE("docs/configuration.md has the key list as the program prints it", "[io][config]") {
  std::ifstream file(source_folder() / "docs/configuration.md");
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  REQUIRE(!text.empty());
  INFO("paste the output of `caravan train --keys` into docs/configuration.md");
  CHECK(text.find("```\n" + key_reference() + "```\n") != std::string::npos);
}
