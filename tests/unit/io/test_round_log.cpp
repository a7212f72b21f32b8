#include "caravan/io/round_log.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <vector>

#include "caravan/core/error.h"
#include "support/temporary_folder.h"

using namespace caravan;
using caravan::test::read_text;
using caravan::test::TemporaryFolder;

TEST_CASE("a round log has one line per round as soon as it is appended", "[io][round_log]") {
  const TemporaryFolder folder;
  RoundLog log(folder / "log.txt", {});
  CHECK(read_text(folder / "log.txt").empty());
  log.append({0, 2.5, 12.18249396070347});
  CHECK(read_text(folder / "log.txt") == "round 0 loss 2.5 perplexity 12.18249396070347\n");
  log.append({1, 0.1, 1.1051709180756477});
  CHECK(read_text(folder / "log.txt") ==
        "round 0 loss 2.5 perplexity 12.18249396070347\nround 1 loss 0.1 perplexity 1.1051709180756477\n");
}

TEST_CASE("a resumed round log holds the kept rounds, not the half line of the kill", "[io][round_log]") {
  const TemporaryFolder folder;
  test::write_text(folder / "log.txt",
                   "round 0 loss 2 perplexity 7\nround 1 loss 1 perplexity 3\nround 2 lo");
  const std::vector<HistoryRecord> kept = {{0, 2.0, 7.0}};
  RoundLog log(folder / "log.txt", kept);
  log.append({1, 1.0, 3.0});
  CHECK(read_text(folder / "log.txt") == "round 0 loss 2 perplexity 7\nround 1 loss 1 perplexity 3\n");
}

TEST_CASE("a round log that cannot be written is an IoError with its path", "[io][round_log]") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(RoundLog(folder / "absent/log.txt", {}), Catch::Contains("absent/log.txt"));
}

TEST_CASE("the round log is named after world size and rounds", "[io][round_log]") {
  CHECK(round_log_name(4, 5) == "eval_res_llama32_ws4_r5.txt");
}

TEST_CASE("checkpoint folders carry the learning rate in its shortest form", "[io][round_log]") {
  CHECK(checkpoint_folder_name("sums", 4, 1e-5, 3) == "sums_ws4_lr1e-05_round3");
  CHECK(checkpoint_folder_name("sums", 1, 0.001, 0) == "sums_ws1_lr0.001_round0");
  CHECK(checkpoint_folder_name("sums", 2, 5e-4, 10) == "sums_ws2_lr0.0005_round10");
  CHECK(checkpoint_folder_name("sums", 2, 3e-3, 1) == "sums_ws2_lr0.003_round1");
}

TEST_CASE("the learning rate in a folder's name reads back as the same number", "[io][round_log]") {
  for (const double lr : {1e-5, 0.1 + 0.2, 2.5e-7, 1.0 / 3.0, 3e-4, 1.0}) {
    const std::string name = checkpoint_folder_name("x", 1, lr, 0);
    CHECK(std::strtod(name.c_str() + name.find("_lr") + 3, nullptr) == lr);
  }
}

TEST_CASE("a name with a slash cannot leave the checkpoints folder", "[io][round_log]") {
  CHECK_THROWS_AS(checkpoint_folder_name("../x", 1, 0.1, 0), ConfigError);
  CHECK_THROWS_AS(checkpoint_folder_name("", 1, 0.1, 0), ConfigError);
}
