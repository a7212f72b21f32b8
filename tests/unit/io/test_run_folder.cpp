#include "caravan/io/run_folder.h"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>

#include "caravan/core/error.h"
#include "support/temporary_folder.h"

using namespace caravan;
using caravan::test::TemporaryFolder;
using caravan::test::write_text;
namespace fs = std::filesystem;

namespace {

void fill_with_a_run(const std::string& run) {
  write_text(run + "/results.h5", "x");
  write_text(run + "/results.h5.123.tmp", "x");
  write_text(run + "/eval_res_llama32_ws4_r5.txt", "x");
  for (const char* name : {"params.json", "consolidated.00.pth", "caravan.json", "tokenizer.model",
                           "consolidated.00.pth.77.tmp", "consolidated.00.pth.tmp-Xy12Zz"}) {
    write_text(run + "/checkpoints/sums_ws4_lr1e-05_round1/" + name, "x");
  }
  write_text(run + "/checkpoints/sums_ws4_lr1e-05_round2.tmp-a1B2c3/consolidated.00.pth", "x");
}

}  // namespace

TEST_CASE("a new output folder is created with its parents", "[io][run_folder]") {
  const TemporaryFolder folder;
  prepare_run_folder(folder / "a/b/c", ExistingRun::kRefuse);
  CHECK(fs::is_directory(folder / "a/b/c"));
  CHECK(fs::is_empty(folder / "a/b/c"));
}

TEST_CASE("checking an output folder creates nothing", "[io][run_folder]") {
  const TemporaryFolder folder;
  check_run_folder(folder / "a/b", ExistingRun::kRefuse);
  CHECK_FALSE(fs::exists(folder / "a"));
}

TEST_CASE("a folder with results is refused and stays as it is", "[io][run_folder]") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  SECTION("results.h5") {
    write_text(run + "/results.h5", "x");
  }
  SECTION("a round log") {
    write_text(run + "/eval_res_llama32_ws1_r2.txt", "x");
  }
  SECTION("a checkpoint") {
    write_text(run + "/checkpoints/x_ws1_lr0.1_round0/params.json", "x");
  }
  CHECK(holds_results(run));
  CHECK_THROWS_AS(check_run_folder(run, ExistingRun::kRefuse), ConfigError);
  CHECK_THROWS_WITH(prepare_run_folder(run, ExistingRun::kRefuse), Catch::Contains("--overwrite"));
  CHECK(holds_results(run));
}

TEST_CASE("other files in the output folder are no results and survive", "[io][run_folder]") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  write_text(run + "/notes.txt", "x");
  write_text(run + "/eval_res_llama32_wsX.txt", "x");
  CHECK_FALSE(holds_results(run));
  prepare_run_folder(run, ExistingRun::kOverwrite);
  CHECK(fs::exists(run + "/notes.txt"));
  CHECK(fs::exists(run + "/eval_res_llama32_wsX.txt"));
}

TEST_CASE("overwrite removes a run's files and nothing else", "[io][run_folder]") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  fill_with_a_run(run);
  write_text(run + "/notes.txt", "x");
  write_text(run + "/checkpoints/mine/params.json", "x");
  write_text(run + "/checkpoints/sums_ws4_lr1e-05_round2/params.json", "x");
  write_text(run + "/checkpoints/sums_ws4_lr1e-05_round2/plot.png", "x");
  prepare_run_folder(run, ExistingRun::kOverwrite);
  CHECK_FALSE(fs::exists(run + "/results.h5"));
  CHECK_FALSE(fs::exists(run + "/results.h5.123.tmp"));
  CHECK_FALSE(fs::exists(run + "/eval_res_llama32_ws4_r5.txt"));
  CHECK_FALSE(fs::exists(run + "/checkpoints/sums_ws4_lr1e-05_round1"));
  CHECK_FALSE(fs::exists(run + "/checkpoints/sums_ws4_lr1e-05_round2/params.json"));
  CHECK(fs::exists(run + "/checkpoints/sums_ws4_lr1e-05_round2/plot.png"));
  CHECK(fs::exists(run + "/checkpoints/mine/params.json"));
  CHECK(fs::exists(run + "/notes.txt"));
}

TEST_CASE("overwrite does not follow symbolic links out of the folder", "[io][run_folder]") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  write_text(run + "/results.h5", "x");
  write_text(folder / "elsewhere/params.json", "x");
  write_text(folder / "kept.h5", "x");
  fs::create_directories(run + "/checkpoints");
  fs::create_directory_symlink(folder / "elsewhere", run + "/checkpoints/x_ws1_lr0.1_round1");
  fs::create_symlink(folder / "kept.h5", run + "/eval_res_llama32_ws1_r1.txt");
  prepare_run_folder(run, ExistingRun::kOverwrite);
  CHECK(fs::exists(folder / "elsewhere/params.json"));
  CHECK(fs::exists(folder / "kept.h5"));
  CHECK_FALSE(fs::exists(run + "/eval_res_llama32_ws1_r1.txt"));
}

TEST_CASE("resuming keeps everything but the temporary files of a kill", "[io][run_folder]") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  fill_with_a_run(run);
  prepare_run_folder(run, ExistingRun::kResume);
  CHECK(fs::exists(run + "/results.h5"));
  CHECK(fs::exists(run + "/eval_res_llama32_ws4_r5.txt"));
  CHECK(fs::exists(run + "/checkpoints/sums_ws4_lr1e-05_round1/caravan.json"));
  CHECK_FALSE(fs::exists(run + "/results.h5.123.tmp"));
  CHECK_FALSE(fs::exists(run + "/checkpoints/sums_ws4_lr1e-05_round2.tmp-a1B2c3"));
}

TEST_CASE("the latest checkpoint is the complete one with the most rounds", "[io][run_folder]") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  CHECK_FALSE(latest_checkpoint(run).has_value());
  RunRecord record;
  record.experiment.dataset = "sums";
  record.slots = {0};
  for (const std::int64_t round : {2, 9, 10}) {
    record.round = round;
    write_text(fmt::format("{}/checkpoints/sums_ws1_lr0.1_round{}/caravan.json", run, round),
               run_record_text(record));
  }
  record.round = 12;
  write_text(run + "/checkpoints/sums_ws1_lr0.1_round12.tmp-a1B2c3/caravan.json", run_record_text(record));
  write_text(run + "/checkpoints/sums_ws1_lr0.1_round11/params.json", "x");
  const auto latest = latest_checkpoint(run);
  REQUIRE(latest.has_value());
  CHECK(latest->folder == run + "/checkpoints/sums_ws1_lr0.1_round10");
  CHECK(latest->record.round == 10);
  write_text(run + "/checkpoints/sums_ws1_lr0.1_round11/caravan.json", "{}");
  CHECK_THROWS_WITH(latest_checkpoint(run), Catch::Contains("round11"));
}

TEST_CASE("a replaced checkpoint is a leftover only when the newer one is in its place", "[io][run_folder]") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  const std::string place = run + "/checkpoints/sums_ws1_lr0.1_round3";
  RunRecord record;
  record.experiment.dataset = "sums";
  record.slots = {0};
  record.round = 3;
  write_text(place + ".old-a1B2c3/caravan.json", run_record_text(record));
  prepare_run_folder(run, ExistingRun::kResume);
  REQUIRE(latest_checkpoint(run).has_value());
  CHECK(latest_checkpoint(run)->folder == place + ".old-a1B2c3");
  write_text(place + "/caravan.json", run_record_text(record));
  CHECK(latest_checkpoint(run)->folder == place);
  prepare_run_folder(run, ExistingRun::kResume);
  CHECK_FALSE(fs::exists(place + ".old-a1B2c3"));
  CHECK(fs::exists(place + "/caravan.json"));
}

TEST_CASE("an output folder that is a file or lies under one is an error", "[io][run_folder]") {
  const TemporaryFolder folder;
  write_text(folder / "file", "x");
  CHECK_THROWS_AS(check_run_folder(folder / "file", ExistingRun::kRefuse), IoError);
  CHECK_THROWS_WITH(check_run_folder(folder / "file/run", ExistingRun::kRefuse),
                    Catch::Contains("is not a folder"));
  CHECK_THROWS_AS(check_run_folder("", ExistingRun::kRefuse), ConfigError);
}

TEST_CASE("a folder that cannot be written is an error", "[io][run_folder]") {
  CHECK_THROWS_AS(prepare_run_folder("/proc/caravan_run", ExistingRun::kRefuse), IoError);
}

TEST_CASE("free space is known for a path that does not exist yet", "[io][run_folder]") {
  const TemporaryFolder folder;
  CHECK(free_bytes(folder / "a/b") > 0);
}

TEST_CASE("what an overwrite frees is the size of what it removes", "[io][run_folder]") {
  const TemporaryFolder folder;
  CHECK(earlier_results_bytes(folder / "none") == 0);
  write_text(folder / "run/results.h5", "1234567");
  write_text(folder / "run/notes.txt", "not counted");
  write_text(folder / "run/checkpoints/x_ws1_lr0.1_round1/params.json", "12345");
  write_text(folder / "run/checkpoints/x_ws1_lr0.1_round1.state/adamw_slot0.safetensors", "123");
  write_text(folder / "run/checkpoints/x_ws1_lr0.1_round1/plot.png", "not counted");
  CHECK(earlier_results_bytes(folder / "run") == 15);
}

TEST_CASE("a checkpoint goes with its state, and what a kill leaves of the removal goes at the next start",
          "[io][run_folder]") {
  const TemporaryFolder folder;
  const std::string round1 = folder / "run/checkpoints/x_ws1_lr0.1_round1";
  const std::string round2 = folder / "run/checkpoints/x_ws1_lr0.1_round2";
  for (const std::string& round : {round1, round2}) {
    write_text(round + "/params.json", "x");
    write_text(round + ".state/adamw_slot0.safetensors", "x");
  }
  remove_run_checkpoint(round1);
  remove_run_checkpoint(round1);  // nothing there: no error
  CHECK_FALSE(fs::exists(round1));
  CHECK_FALSE(fs::exists(round1 + ".state"));
  CHECK(fs::exists(round2 + ".state/adamw_slot0.safetensors"));
  // Killed after the first rename: half a folder under a temporary name, and a state without its checkpoint.
  write_text(round1 + ".tmp-remove/consolidated.00.pth", "x");
  write_text(round1 + ".state/adamw_slot0.safetensors", "x");
  prepare_run_folder(folder / "run", ExistingRun::kResume);
  CHECK_FALSE(fs::exists(round1 + ".tmp-remove"));
  CHECK_FALSE(fs::exists(round1 + ".state"));
  CHECK(fs::exists(round2 + "/params.json"));
  CHECK(fs::exists(round2 + ".state/adamw_slot0.safetensors"));
}

TEST_CASE("a model written again under another name replaces the one of the same step", "[io][run_folder]") {
  const TemporaryFolder folder;
  const auto made = [&](const std::string& name) {
    write_text(folder / ("checkpoints/" + name + "/params.json"), "x");
    return folder / ("checkpoints/" + name);
  };
  const std::string kept = made("x_ws8_lr0.1_round6");
  const std::string other_ranks = made("x_ws2_lr0.1_round6");
  const std::string other_rate = made("x_ws8_lr1e-05_round6");
  const std::string other_step = made("x_ws2_lr0.1_round16");
  const std::string other_run = made("x_wsx_ws2_lr0.1_round6");
  const std::string state = made("step_00000006");
  remove_renamed_checkpoints(kept);
  CHECK_FALSE(fs::exists(other_ranks));
  CHECK_FALSE(fs::exists(other_rate));
  for (const std::string& path : {kept, other_step, other_run, state}) {
    CHECK(fs::exists(path));
  }
}
