// TIMEOUT 600
#include "caravan/io/checkpoint_store.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include <atomic>
#include <catch2/catch.hpp>
#include <filesystem>
#include <new>
#include <random>

#include "caravan/core/error.h"
#include "caravan/io/run_folder.h"
#include "support/checkpoints.h"
#include "support/sharded_checkpoints.h"
#include "support/temporary_folder.h"

using namespace caravan;
using caravan::test::TemporaryFolder;
namespace fs = std::filesystem;

namespace {

using Names = std::vector<std::string>;

void damage(const std::string& file) {
  std::string text = test::read_text(file);
  text[text.size() - 5] = static_cast<char>(text[text.size() - 5] ^ 4);
  test::write_text(file, text);
}

std::int64_t latest_step(const std::string& folder) {
  const LatestCheckpoint latest = find_latest(folder);
  return latest.reader ? latest.reader->state().step : -1;
}

/// Writes step after step until it is killed; keeps two. `committed` is shared with the parent.
[[noreturn]] void write_for_ever(const std::string& folder, std::int64_t first,
                                 std::atomic<std::int64_t>& committed) {
  for (std::int64_t step = first;; ++step) {
    test::write_sample(folder, {.step = step, .ranks = 3});
    committed = step;
    if (step % 3 == 0) {  // a second write of the same step replaces the first
      test::write_sample(folder, {.step = step, .ranks = 2, .id = "aaaaaaaaaaaaaaaa"});
    }
    keep_newest(folder, 2, step);
  }
}

}  // namespace

TEST_CASE("folders are named by their step, in the order of their names", "[io][store]") {
  CHECK(step_folder_name(0) == "step_00000000");
  CHECK(step_folder_name(100) == "step_00000100");
  CHECK(step_folder_name(1'234'567'890'123) == "step_1234567890123");
  for (const std::int64_t step : {std::int64_t{0}, std::int64_t{7}, std::int64_t{123'456'789'012}}) {
    CHECK(step_of_folder_name(step_folder_name(step)) == step);
  }
  for (const char* name :
       {"step_", "step_100", "step_000000100", "step_-0000100", "step_00000100.tmp-abcdef", "step_00000100x",
        "Step_00000100", "step_99999999999999999999", "sums_ws1_lr1_round1"}) {
    CAPTURE(name);
    CHECK_FALSE(step_of_folder_name(name).has_value());
  }
}

TEST_CASE("no folder and an empty folder hold no checkpoint", "[io][store]") {
  const TemporaryFolder folder;
  CHECK(find_latest(folder / "nothing").reader == nullptr);
  CHECK(find_latest(folder.path().string()).reader == nullptr);
  CHECK(step_folders(folder / "nothing").empty());
}

TEST_CASE("the newest intact checkpoint is found, and why newer ones are not used", "[io][store]") {
  const TemporaryFolder folder;
  const std::string at = folder.path().string();
  for (const std::int64_t step : {50, 200, 9, 100}) {
    test::write_sample(at, {.step = step});
  }
  CHECK(latest_step(at) == 200);
  damage(folder / "step_00000200/shard_00002.safetensors");
  fs::remove(folder / "step_00000100/shard_00001.safetensors");
  const LatestCheckpoint latest = find_latest(at);
  REQUIRE(latest.reader != nullptr);
  CHECK(latest.reader->state().step == 50);
  CHECK(test::holds_sample(*latest.reader, 2));
  REQUIRE(latest.refused.size() == 2);
  CHECK_THAT(latest.refused[0], Catch::Contains("step_00000200/shard_00002.safetensors: bytes"));
  CHECK_THAT(latest.refused[1], Catch::Contains("step_00000100/shard_00001.safetensors: cannot be read"));
}

TEST_CASE("a checkpoint under another step's name is refused", "[io][store]") {
  const TemporaryFolder folder;
  test::write_sample(folder.path().string(), {.step = 50});
  fs::rename(folder / "step_00000050", folder / "step_00000060");
  const LatestCheckpoint latest = find_latest(folder.path().string());
  CHECK(latest.reader == nullptr);
  CHECK_THAT(latest.refused.at(0), Catch::Contains("step_00000060: the manifest in it is of step 50"));
}

TEST_CASE("unfinished folders, links and files with a step's name are not looked at", "[io][store]") {
  const TemporaryFolder folder;
  const std::string at = folder.path().string();
  test::write_sample(at, {.step = 5});
  test::write_sample(folder / "elsewhere", {.step = 70});
  fs::create_directory(folder / "step_00000060");
  test::write_text(folder / "step_00000060/shard_00000.safetensors", "x");
  fs::create_directory_symlink(folder / "elsewhere/step_00000070", folder / "step_00000070");
  test::write_text(folder / "step_00000080", "x");
  fs::copy(folder / "step_00000005", folder / "step_00000090.tmp-abcdef", fs::copy_options::recursive);
  const LatestCheckpoint latest = find_latest(at);
  CHECK(latest.reader->state().step == 5);
  CHECK(latest.refused.empty());
}

TEST_CASE("the last K stay, and what lies behind the newest goes", "[io][store]") {
  const TemporaryFolder folder;
  const std::string at = folder.path().string();
  for (const std::int64_t step : {10, 20, 30, 40, 50}) {
    test::write_sample(at, {.step = step});
  }
  keep_newest(at, 3, 50);
  CHECK(test::file_names(at) == Names{"step_00000030", "step_00000040", "step_00000050"});
  // The run was taken back to step 30 and has written 35: 40 and 50 are another future.
  test::write_sample(at, {.step = 35});
  keep_newest(at, 2, 35);
  CHECK(test::file_names(at) == Names{"step_00000030", "step_00000035"});
  keep_newest(at, 1, 35);
  CHECK(test::file_names(at) == Names{"step_00000035"});
  keep_newest(at, 1, 35);
  CHECK(test::file_names(at) == Names{"step_00000035"});
}

TEST_CASE("checkpoints that were passed over are set aside and never looked at again", "[io][store]") {
  const TemporaryFolder folder;
  const std::string at = folder.path().string();
  for (const std::int64_t step : {10, 20, 30}) {
    test::write_sample(at, {.step = step});
  }
  set_aside_later(at, 20);
  CHECK(test::file_names(at) == Names{"step_00000010", "step_00000020", "step_00000030.refused"});
  set_aside_later(at, 20);
  test::write_sample(at, {.step = 30});  // taken anew, and refused once more
  set_aside_later(at, 20);
  CHECK(test::file_names(at) ==
        Names{"step_00000010", "step_00000020", "step_00000030.refused", "step_00000030.refused-2"});
  sweep_checkpoints(at);
  test::write_sample(at, {.step = 40});
  keep_newest(at, 1, 40);
  CHECK(test::file_names(at) == Names{"step_00000030.refused", "step_00000030.refused-2", "step_00000040"});
  CHECK(step_folders(at).size() == 1);
  // Whole, as they were.
  CHECK(ShardedCheckpointReader(folder / "step_00000030.refused").state().step == 30);
}

TEST_CASE("what a run did not write survives the removal of a checkpoint", "[io][store]") {
  const TemporaryFolder folder;
  const std::string at = folder.path().string();
  test::write_sample(at, {.step = 10});
  test::write_sample(at, {.step = 20});
  test::write_text(folder / "step_00000010/notes.txt", "mine");
  test::write_text(folder / "notes.txt", "mine");
  keep_newest(at, 1, 20);
  CHECK(test::file_names(folder / "step_00000010") == Names{"notes.txt"});
  CHECK(fs::exists(folder / "notes.txt"));
  CHECK(step_folders(at).size() == 1);
}

TEST_CASE("a checkpoint in place of an older one of the same step replaces it", "[io][store]") {
  const TemporaryFolder folder;
  const std::string at = folder.path().string();
  test::write_sample(at, {.step = 10});
  test::write_sample(at, {.step = 10, .ranks = 2, .id = "fedcba9876543210"});
  CHECK(find_latest(at).reader->manifest().id == "fedcba9876543210");
  CHECK(test::file_names(at) == Names{"step_00000010"});
  test::write_text(folder / "step_00000010/notes.txt", "mine");
  CHECK_THROWS_WITH(test::write_sample(at, {.step = 10}),
                    Catch::Contains("notes.txt is no file of a checkpoint"));
  CHECK(test::file_names(at) == Names{"step_00000010"});
}

TEST_CASE("sweeping removes what killed writes left and nothing else", "[io][store]") {
  const TemporaryFolder folder;
  const std::string at = folder.path().string();
  test::write_sample(at, {.step = 10});
  const auto copy = [&](const char* name) {
    fs::copy(folder / "step_00000010", folder / name, fs::copy_options::recursive);
  };
  copy("step_00000020.tmp-a1B2c3");
  copy("step_00000010.old-a1B2c3");  // its place was taken by the new one
  copy("step_00000030.old-a1B2c3");  // killed between moving aside and moving in
  copy("step_00000040");             // killed in the middle of its removal
  fs::remove(folder / "step_00000040/manifest.json");
  copy("mine");
  copy("mine.tmp-a1B2c3");
  test::write_text(folder / "step_00000050.tmp-a1B2c3/shard_00000.safetensors.tmp-x1y2z3", "half");
  sweep_checkpoints(at);
  CHECK(test::file_names(at) == Names{"mine", "mine.tmp-a1B2c3", "step_00000010", "step_00000030"});
  sweep_checkpoints(at);
  sweep_checkpoints(folder / "nothing");
  CHECK(test::file_names(at).size() == 4);
}

TEST_CASE("the output folder knows training checkpoints as results", "[io][store][run_folder]") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  test::write_sample(run + "/checkpoints", {.step = 10});
  test::write_text(run + "/checkpoints/step_00000020.tmp-a1B2c3/shard_00000.safetensors.tmp-x1y2z3", "half");
  CHECK(holds_results(run));
  CHECK_THROWS_WITH(check_run_folder(run, ExistingRun::kRefuse), Catch::Contains("already holds"));
  prepare_run_folder(run, ExistingRun::kResume);
  CHECK(test::file_names(run + "/checkpoints") == Names{"step_00000010"});
  CHECK(latest_step(run + "/checkpoints") == 10);
  CHECK_FALSE(latest_checkpoint(run).has_value());  // no model of a round
  prepare_run_folder(run, ExistingRun::kOverwrite);
  CHECK_FALSE(holds_results(run));
  CHECK_FALSE(fs::exists(run + "/checkpoints"));
}

TEST_CASE("a writer killed at any moment leaves the previous checkpoint to be found", "[io][store]") {
  const TemporaryFolder folder;
  const std::string at = folder.path().string();
  // Memory that a killed child has written to is still there.
  void* shared = ::mmap(nullptr, sizeof(std::atomic<std::int64_t>), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(shared != MAP_FAILED);
  auto& committed = *new (shared) std::atomic<std::int64_t>(0);
  std::mt19937 random(7);
  constexpr int kKills = 60;
  int killed_in_a_write = 0;
  for (int kill = 0; kill < kKills; ++kill) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      try {
        write_for_ever(at, committed + 1, committed);
      } catch (...) {
        std::_Exit(3);
      }
    }
    const std::int64_t before = committed;
    // Some kills right after a commit, others anywhere.
    while (kill % 2 == 0 && committed == before) {
      ::usleep(50);
    }
    ::usleep(static_cast<useconds_t>(random() % 30'000));
    ::kill(child, SIGKILL);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));
    for (const std::string& name : test::file_names(at)) {
      killed_in_a_write += name.find(".tmp-") != std::string::npos ? 1 : 0;
    }
    const LatestCheckpoint latest = find_latest(at);
    CAPTURE(kill);
    CHECK(latest.refused.empty());  // an unfinished one is not even looked at
    if (committed > 0) {
      REQUIRE(latest.reader != nullptr);
      CHECK(latest.reader->state().step >= committed);
      CHECK(test::holds_sample(*latest.reader, 1));
    }
    sweep_checkpoints(at);
    const std::int64_t found = latest.reader ? latest.reader->state().step : 0;
    CHECK(latest_step(at) == (found == 0 ? -1 : found));
    committed = found;
  }
  CHECK(killed_in_a_write > 5);
  CHECK(committed > 5);
  keep_newest(at, 2, committed);  // some were killed before they came to it
  CHECK(test::file_names(at).size() == 2);
  ::munmap(shared, sizeof(std::atomic<std::int64_t>));
}
