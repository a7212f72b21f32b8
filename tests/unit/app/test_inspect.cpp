#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdio>

#include "caravan/core/error.h"
#include "src/app/commands.h"
#include "support/sharded_checkpoints.h"
#include "support/temporary_folder.h"

using namespace caravan;
using namespace caravan::test;

namespace {

/// Standard output goes into a file while this lives.
class CapturedOutput {
 public:
  explicit CapturedOutput(const std::string& path) {
    std::fflush(stdout);
    saved_ = ::dup(STDOUT_FILENO);
    std::FILE* file = std::fopen(path.c_str(), "wb");
    REQUIRE(file != nullptr);
    ::dup2(::fileno(file), STDOUT_FILENO);
    std::fclose(file);
  }
  CapturedOutput(const CapturedOutput&) = delete;
  CapturedOutput& operator=(const CapturedOutput&) = delete;
  ~CapturedOutput() {
    std::fflush(stdout);
    ::dup2(saved_, STDOUT_FILENO);
    ::close(saved_);
  }

 private:
  int saved_ = -1;
};

void run_inspect(const std::string& path) {
  CLI::App program("test", "caravan");
  app::add_inspect_command(program);
  std::vector<std::string> arguments = {path, "inspect"};  // CLI11 takes a vector from its back
  program.parse(arguments);
}

}  // namespace

TEST_CASE("inspect shows a training checkpoint and checks every byte of it", "[app][inspect]") {
  const TemporaryFolder folder;
  const std::string path = write_sample(folder.path().string());
  {
    const CapturedOutput captured(folder / "out.txt");
    run_inspect(path);
  }
  const std::string text = read_text(folder / "out.txt");
  for (const char* words : {"training checkpoint after step 100", "4 ranks, tp 2, dp_shard 2",
                            "samples consumed   3200", "float32   [13, 6]", "shard_00003.safetensors  ",
                            "9 tensors, ", "configuration\nseed: 42\n", "all checksums are right\n"}) {
    CAPTURE(text);
    CHECK(text.find(words) != std::string::npos);
  }
  std::string shard = read_text(path + "/shard_00002.safetensors");
  shard.back() = static_cast<char>(shard.back() ^ 1);
  write_text(path + "/shard_00002.safetensors", shard);
  const CapturedOutput captured(folder / "out.txt");
  CHECK_THROWS_WITH(run_inspect(path), Catch::Contains("shard_00002.safetensors: bytes"));
}
