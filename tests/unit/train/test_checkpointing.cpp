// RANKS 1 2 4
#include "caravan/train/checkpointing.h"

#include <sys/resource.h>
#include <csignal>

#include <catch2/catch.hpp>
#include <chrono>
#include <filesystem>
#include <thread>

#include "caravan/comm/mpi_session.h"
#include "caravan/core/error.h"
#include "caravan/io/checkpoint_store.h"
#include "support/checkpoints.h"
#include "support/sharded_checkpoints.h"
#include "support/shared_folder.h"

using namespace caravan;
using caravan::test::SharedFolder;
namespace fs = std::filesystem;

namespace {

using Names = std::vector<std::string>;

Communicator& world() {
  return MpiSession::current().world();
}

/// What this rank saves at a step; the memory must outlive the sources.
struct Sample {
  explicit Sample(std::int64_t step) {
    state.step = step;
    state.ranks = world().size();
    state.mesh = "a test";
    sources = test::sample_sources({.step = step, .ranks = world().size()}, world().rank(), memory);
  }
  TrainingState state;
  std::vector<std::vector<std::byte>> memory;
  std::vector<ShardSource> sources;
};

void save(Checkpointing& checkpoints, std::int64_t step) {
  Sample sample(step);
  checkpoints.save(sample.state, sample.sources);
}

/// Names in a folder, the same on all ranks; no rank goes on before all have looked.
Names names_in(const std::string& folder) {
  world().barrier();
  Names names = fs::exists(folder) ? test::file_names(folder) : Names{};
  world().barrier();
  return names;
}

/// The message of the IoError that `work` throws; empty when it throws none.
template <class Work>
std::string error_of(const Work& work) {
  try {
    work();
  } catch (const IoError& problem) {
    return problem.what();
  }
  return "";
}

/// The last rank cannot write more than `bytes` into one file while this lives.
class SmallDisk {
 public:
  explicit SmallDisk(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    if (world().rank() == world().size() - 1) {
      handler_ = ::signal(SIGXFSZ, SIG_IGN);
      rlimit small = before_;
      small.rlim_cur = bytes;
      ::setrlimit(RLIMIT_FSIZE, &small);
    }
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  ~SmallDisk() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    if (handler_ != nullptr) {
      ::signal(SIGXFSZ, handler_);
    }
  }

 private:
  rlimit before_{};
  void (*handler_)(int) = nullptr;
};

void flip_last_bit(const std::string& file) {
  if (world().rank() == 0) {
    std::string text = test::read_text(file);
    text.back() = static_cast<char>(text.back() ^ 1);
    test::write_text(file, text);
  }
  world().barrier();
}

}  // namespace

TEST_CASE("what all ranks save together, all ranks find", "[train][checkpointing]") {
  const SharedFolder folder(world());
  for (const bool is_async : {false, true}) {
    const std::string at = folder / (is_async ? "async" : "sync");
    Checkpointing checkpoints(at, {.keep = 3, .is_async = is_async}, world());
    CHECK(find_latest_checkpoint(at, world()) == nullptr);
    save(checkpoints, 10);
    save(checkpoints, 20);  // waits for the one before
    checkpoints.finish();
    CHECK(checkpoints.last_saved() == at + "/step_00000020");
    CHECK(names_in(at) == Names{"step_00000010", "step_00000020"});
    const auto latest = find_latest_checkpoint(at, world());
    REQUIRE(latest != nullptr);
    CHECK(latest->state().step == 20);
    CHECK(latest->state().mesh == "a test");
    CHECK(test::holds_sample(*latest, world().size()));
    CHECK(test::holds_sample(*latest, 3));
    const auto first = open_checked_checkpoint(at + "/step_00000010", world());
    CHECK(first->manifest().id != latest->manifest().id);
    CHECK(test::holds_sample(*first, 1));
  }
}

TEST_CASE("training goes on while a checkpoint is written, and may change what was saved",
          "[train][checkpointing]") {
  const SharedFolder folder(world());
  Checkpointing checkpoints(folder / "c", {.is_async = true}, world());
  {
    Sample sample(10);
    checkpoints.save(sample.state, sample.sources);
    for (auto& memory : sample.memory) {
      std::fill(memory.begin(), memory.end(), std::byte{0xFF});
    }
  }
  int steps = 0;
  for (; checkpoints.last_saved().empty() && steps < 10'000; ++steps) {
    checkpoints.poll();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  CHECK(checkpoints.last_saved() == folder / "c/step_00000010");
  checkpoints.poll();
  checkpoints.finish();
  const auto latest = find_latest_checkpoint(folder / "c", world());
  REQUIRE(latest != nullptr);
  CHECK(test::holds_sample(*latest, 2));
}

TEST_CASE("nothing is said to be saved before every rank has written its part", "[train][checkpointing]") {
  const SharedFolder folder(world());
  Checkpointing checkpoints(folder / "c", {.is_async = true}, world());
  save(checkpoints, 10);
  for (const std::string& name : names_in(folder / "c")) {
    CHECK(name.starts_with("step_00000010.tmp-"));
  }
  CHECK(find_latest_checkpoint(folder / "c", world()) == nullptr);
  checkpoints.finish();
  CHECK(find_latest_checkpoint(folder / "c", world()) != nullptr);
}

TEST_CASE("a write in the background that is never completed leaves nothing", "[train][checkpointing]") {
  const SharedFolder folder(world());
  {
    Checkpointing checkpoints(folder / "c", {.is_async = true}, world());
    save(checkpoints, 10);
  }
  world().barrier();  // every rank has given up; what one still wrote while rank 0 removed the folder may be
                      // there
  for (const std::string& name : names_in(folder / "c")) {
    CHECK(name.starts_with("step_00000010.tmp-"));
  }
  CHECK(find_latest_checkpoint(folder / "c", world()) == nullptr);
  world().barrier();  // every rank has looked
  if (world().rank() == 0) {
    sweep_checkpoints(folder / "c");  // as the next run does at its start
  }
  Checkpointing next(folder / "c", {}, world());
  save(next, 20);
  CHECK(names_in(folder / "c") == Names{"step_00000020"});
}

TEST_CASE("one rank that cannot write fails all of them, and the previous checkpoint stays",
          "[train][checkpointing]") {
  const SharedFolder folder(world());
  const std::string culprit = world().size() > 1 ? fmt::format("rank {}: ", world().size() - 1) : "";
  for (const bool is_async : {false, true}) {
    const std::string at = folder / (is_async ? "async" : "sync");
    Checkpointing checkpoints(at, {.is_async = is_async}, world());
    save(checkpoints, 10);
    checkpoints.finish();
    {
      const SmallDisk small(100);
      const std::string message = error_of([&] {
        save(checkpoints, 20);
        while (checkpoints.last_saved().ends_with("10")) {
          checkpoints.poll();
        }
      });
      CHECK_THAT(message, Catch::StartsWith(culprit + at + "/step_00000020.tmp-"));
      CHECK_THAT(message,
                 Catch::Contains("safetensors: writing at byte") && Catch::Contains("File too large"));
    }
    CHECK(names_in(at) == Names{"step_00000010"});
    CHECK(find_latest_checkpoint(at, world())->state().step == 10);
    save(checkpoints, 30);  // and it is not the end
    checkpoints.finish();
    CHECK(names_in(at) == Names{"step_00000010", "step_00000030"});
  }
}

TEST_CASE("contents that cannot be had fail all ranks", "[train][checkpointing]") {
  const SharedFolder folder(world());
  for (const bool is_async : {false, true}) {
    Checkpointing checkpoints(folder / "c", {.is_async = is_async}, world());
    Sample sample(10);
    if (world().rank() == world().size() - 1) {
      sample.sources.front().data = nullptr;
      sample.sources.front().read = [](std::int64_t, std::span<std::byte>) {
        throw DeviceError("the device has fallen off the bus");
      };
    }
    CHECK_THAT(error_of([&] { checkpoints.save(sample.state, sample.sources); }),
               Catch::EndsWith("the device has fallen off the bus"));
    CHECK(names_in(folder / "c").empty());
  }
}

TEST_CASE("parts that do not fit together are a bug that all ranks hear of", "[train][checkpointing]") {
  const SharedFolder folder(world());
  Checkpointing checkpoints(folder / "c", {}, world());
  Sample sample(10);
  if (world().rank() == 0) {
    sample.sources.erase(sample.sources.begin());
  }
  const std::string message = error_of([&] { checkpoints.save(sample.state, sample.sources); });
  if (world().size() > 1) {
    CHECK_THAT(message,
               Catch::Contains("could not be read again") && Catch::Contains("tok_embeddings.weight"));
    CHECK(names_in(folder / "c").empty());
  }
}

TEST_CASE("a place that cannot be written is one message for all", "[train][checkpointing]") {
  const SharedFolder folder(world());
  if (world().rank() == 0) {
    test::write_text(folder / "file", "x");
  }
  world().barrier();
  Checkpointing checkpoints(folder / "file/checkpoints", {}, world());
  CHECK_THAT(error_of([&] { save(checkpoints, 10); }),
             Catch::Contains("file/checkpoints: cannot be created"));
}

TEST_CASE("the last ones are kept", "[train][checkpointing]") {
  const SharedFolder folder(world());
  Checkpointing checkpoints(folder / "c", {.keep = 2}, world());
  for (const std::int64_t step : {10, 20, 30, 40}) {
    save(checkpoints, step);
  }
  CHECK(names_in(folder / "c") == Names{"step_00000030", "step_00000040"});
}

TEST_CASE("a damaged newest checkpoint is passed over with a warning, a named one is an error",
          "[train][checkpointing]") {
  const SharedFolder folder(world());
  Checkpointing checkpoints(folder / "c", {}, world());
  save(checkpoints, 10);
  save(checkpoints, 20);
  const std::string shard = fmt::format("shard_{:05}.safetensors", world().size() - 1);
  flip_last_bit(folder / "c/step_00000020" + "/" + shard);
  const auto latest = find_latest_checkpoint(folder / "c", world());
  REQUIRE(latest != nullptr);
  CHECK(latest->state().step == 10);
  CHECK(test::holds_sample(*latest, world().size()));
  const std::string message = error_of([&] { open_checked_checkpoint(folder / "c/step_00000020", world()); });
  CHECK_THAT(message, Catch::Contains("step_00000020/" + shard + ": bytes"));
  std::string of_rank_0 = message;
  world().broadcast_bytes(of_rank_0, 0);
  CHECK(message == of_rank_0);
  save(checkpoints, 20);  // written again, it takes the damaged one's place
  CHECK(find_latest_checkpoint(folder / "c", world())->state().step == 20);
}

TEST_CASE("a path that is no checkpoint is named, with the one it may have meant", "[train][checkpointing]") {
  const SharedFolder folder(world());
  Checkpointing checkpoints(folder / "run/checkpoints", {}, world());
  save(checkpoints, 10);
  CHECK_THAT(
      error_of([&] { open_checked_checkpoint(folder / "nothing", world()); }),
      Catch::Contains("nothing: is no training checkpoint, a folder like checkpoints/step_00000100 with "
                      "manifest.json in it"));
  for (const std::string& path : {folder / "run", folder / "run/checkpoints"}) {
    CHECK_THAT(error_of([&] { open_checked_checkpoint(path, world()); }),
               Catch::Contains("the newest below it is " + (folder / "run/checkpoints/step_00000010")));
  }
}
