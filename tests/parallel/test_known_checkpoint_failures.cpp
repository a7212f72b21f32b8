// RANKS 2 4
// TIMEOUT 300
// Failures that other systems had when they saved, loaded and converted, each under the number of its thread:
// torchtitan's where no other project is named. More of them: test_known_failures.cpp.
#include <catch2/catch.hpp>
#include <functional>
#include <string>
#include <vector>

#include "caravan/comm/mpi_session.h"
#include "caravan/train/checkpointing.h"
#include "caravan/train/training_checkpoint.h"
#include "tests/support/known_failures.h"
#include "tests/support/malloc_count.h"
#include "tests/support/shared_folder.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr std::int64_t kItemBytes = 8;                          // float64
constexpr std::int64_t kWriterBytes = std::int64_t{24} << 20U;  // of OutputFile, however large the file

void save(MeshRun& run, const ModelConfig& model, const std::string& folder) {
  TrainingState state;
  state.step = 1;
  state.optimizer_step = 1;
  Checkpointing checkpoints(folder, {}, world());
  checkpoints.save(state,
                   checkpoint_sources(run->store(), run->trainer().optimizer(), model, run->layout().at));
}

/// Bytes that this rank sent and received so far.
std::int64_t moved_bytes(SynchronousRun& run) {
  const TrafficCounter total = run.traffic().total();
  return total.sent_bytes + total.received_bytes;
}

struct Cost {
  std::int64_t memory = 0;  // most on top of what was there before
  std::int64_t moved = 0;   // between ranks
};

Cost cost_of(SynchronousRun& run, const std::function<void()>& work) {
  peak_bytes = live_bytes.load();
  const std::int64_t live_before = live_bytes;
  const std::int64_t moved_before = moved_bytes(run);
  work();
  return {peak_bytes - live_before, moved_bytes(run) - moved_before};
}

/// The meshes in which ranks hold parts, copies, and copies of parts.
std::vector<ParallelSection> meshes() {
  std::vector<ParallelSection> all = {{.dp_replicate = world().size(), .dp_shard = 1},
                                      {},
                                      {.dp_shard = 1, .tp = world().size()},
                                      {.dp_shard = 1, .pp = world().size()}};
  if (world().size() == 4) {
    all.push_back({.dp_replicate = 2});  // HSDP, as in #151030
    all.push_back({.dp_shard = 1, .cp = 2, .tp = 2});
  }
  return all;
}

}  // namespace

TEST_CASE("pytorch #151030, PR #1300: all ranks save their own parts at once, and none gathers any",
          "[parallel][known][checkpoint]") {
  const SharedFolder folder(world());
  const ModelConfig model = mesh_model(false, 60);  // no tensor is a large part of it
  const std::int64_t state_bytes = 3 * parameter_count(model) * kItemBytes;
  REQUIRE(state_bytes > 2 * kWriterBytes);
  int number = 0;
  for (const ParallelSection& parallel : meshes()) {
    CAPTURE(describe(resolve_mesh(parallel, world().size())));
    MeshRun run(world(), config_of(parallel), model);
    const std::string path = folder / std::to_string(number++);
    const Cost cost = cost_of(*run, [&] { save(run, model, path); });
    CAPTURE(cost.memory, cost.moved, state_bytes);
    CHECK(cost.moved < state_bytes / 50);  // where what lies, for the manifest
    if (kCountsAllocations) {
      CHECK(cost.memory < kWriterBytes + state_bytes / 5);  // lists of pieces, and their JSON
    }
    const auto checkpoint = open_checked_checkpoint(find_latest_checkpoint(path, world())->folder(), world());
    const auto& files = checkpoint->manifest().tables.files;
    REQUIRE(files.size() == static_cast<std::size_t>(world().size()));
    for (const ShardFile& file : files) {
      CHECK(file.bytes * world().size() < state_bytes * 3 / 2);
    }
  }
}

TEST_CASE("pytorch #151030: the model of the end comes to one rank a tensor at a time",
          "[parallel][known][checkpoint]") {
  const SharedFolder folder(world());
  const ModelConfig model = mesh_model(false, 12);
  const std::int64_t largest_bytes = model.vocab_size * model.hidden_size * kItemBytes;
  for (const ParallelSection& parallel : meshes()) {
    CAPTURE(describe(resolve_mesh(parallel, world().size())));
    MeshRun run(world(), config_of(parallel), model);
    const auto specs = parameter_table(model, ShardTable::kSynchronous);
    std::vector<std::byte> rows(static_cast<std::size_t>(largest_bytes));
    const Cost cost = cost_of(*run, [&] {
      ModelGather gather(world(), specs, run->store().shards());
      if (world().rank() != ModelGather::kRoot) {
        gather.contribute();
        return;
      }
      for (const TensorSource& source : gather.sources()) {
        source.read_rows(0, source.shape[0], rows.data());
      }
    });
    CAPTURE(cost.memory, largest_bytes);
    if (kCountsAllocations) {
      // A tensor and the parts it is put together from; the rest is lists of regions.
      CHECK(cost.memory < 3 * largest_bytes);
      CHECK(3 * largest_bytes < parameter_count(model) * kItemBytes / 10);
    }
  }
}

TEST_CASE(
    "ROCm Megatron PR #63: gate and up rows are the same after other ranks have saved, loaded and cut them",
    "[parallel][known][checkpoint]") {
  // Every element has its own number, so that rows in another order are noticed.
  const SharedFolder folder(world());
  const ModelConfig model = mesh_model(false);
  const auto numbers = [&](const Context&, const std::vector<ParameterShard>& shards) {
    for (const ParameterShard& shard : shards) {
      const std::int64_t columns =
          shard.parameter->spec().shape.rank() == 1 ? 1 : shard.parameter->spec().shape[1];
      std::int64_t i = 0;
      for (std::int64_t row = shard.region[0].begin; row < shard.region[0].end; ++row) {
        const Range across = shard.region.size() == 1 ? Range{0, 1} : shard.region[1];
        for (std::int64_t column = across.begin; column < across.end; ++column) {
          shard.value.data<double>()[i++] = static_cast<double>(row * columns + column);
        }
      }
    }
  };
  const auto weights_after = [&](const ParallelSection& writer, const ParallelSection& reader) {
    const std::string path = folder / fmt::format("{}-{}-{}", writer.tp, reader.tp, reader.pp);
    {
      MeshRun run(world(), config_of(writer), model);
      run->load(numbers);
      save(run, model, path);
    }
    MeshRun run(world(), config_of(reader), model);
    const auto checkpoint = find_latest_checkpoint(path, world());
    restore(*run, *checkpoint);
    return run.weights();
  };
  SelfCommunicator self;
  MeshRun alone(self, config_of({.dp_shard = 1}), model);
  alone->load(numbers);
  const auto expected = alone.weights();
  const ParallelSection whole{.dp_replicate = world().size(), .dp_shard = 1};
  const ParallelSection all{.dp_shard = 1, .tp = world().size()};
  const ParallelSection two{.tp = 2};
  for (const auto& [writer, reader] :
       {std::pair(all, whole), std::pair(whole, all), std::pair(two, all), std::pair(all, two),
        std::pair(all, ParallelSection{.dp_shard = -1, .pp = 2})}) {
    CAPTURE(writer.tp, reader.tp, reader.pp);
    const auto found = weights_after(writer, reader);
    CHECK((world().rank() != 0 || found == expected));
  }
}
