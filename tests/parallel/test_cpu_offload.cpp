// RANKS 1 2 4 8
// TIMEOUT 300
// Where shards are kept changes no bit: gradients, clipping, accumulation, updates and checkpoints with
// parallel.cpu_offload are those without it, and the plan says what it takes from the device.
#include <catch2/catch.hpp>

#include "caravan/comm/mpi_session.h"
#include "caravan/federated/run_plan.h"
#include "caravan/train/checkpointing.h"
#include "caravan/train/training_checkpoint.h"
#include "tests/support/mesh_runs.h"
#include "tests/support/shared_folder.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr std::int64_t kRows = 8;
constexpr std::int64_t kLongest = 21;
constexpr int kSteps = 6;
constexpr double kLearningRate = 3e-3;

Communicator& world() {
  return MpiSession::current().world();
}

struct Layout {
  std::string name;
  ParallelSection parallel;
  std::int64_t micro_batch = 1;  // accumulation, but on 8 ranks
  bool is_tied = false;
};

std::vector<Layout> layouts() {
  std::vector<Layout> all = {
      {.name = "zero 3", .parallel = {}},
      {.name = "zero 3, no reshard", .parallel = {.reshard_after_forward = false}, .is_tied = true},
      {.name = "zero 2", .parallel = {.zero_stage = 2}},
      {.name = "zero 1", .parallel = {.zero_stage = 1}, .is_tied = true},
      {.name = "zero 3, one micro-batch", .parallel = {}, .micro_batch = kRows / world().size()},
      {.name = "zero 2, one micro-batch",
       .parallel = {.zero_stage = 2},
       .micro_batch = kRows / world().size(),
       .is_tied = true},
  };
  if (world().size() >= 2) {
    all.push_back({.name = "cp", .parallel = {.dp_replicate = -1, .dp_shard = 1, .cp = 2}});
    all.push_back({.name = "pp", .parallel = {.pp = 2}, .is_tied = true});
  }
  if (world().size() >= 4) {
    all.push_back({.name = "hsdp", .parallel = {.dp_replicate = 2}, .is_tied = true});
    all.push_back({.name = "hsdp, zero 1", .parallel = {.dp_replicate = 2, .zero_stage = 1}});
    all.push_back({.name = "tp x zero 3", .parallel = {.tp = 2}, .is_tied = true});
    all.push_back({.name = "cp x zero 3", .parallel = {.cp = 2}});
  }
  return all;
}

bool is_divided(const Layout& layout) {
  return resolve_mesh(layout.parallel, world().size()).dp_shard > 1;
}

/// Where copies are whole without offload, their gradients add up in place over micro-batches, but in stages
/// 2 and 3 of an offloaded store beside it, and several ranks' are summed in another way: other roundings.
bool has_same_sums(const Layout& layout) {
  const bool is_alone = world().size() == 1;
  return is_divided(layout) || (is_alone && (layout.parallel.zero_stage == 1 || layout.micro_batch == kRows));
}

RunConfig config_of(const Layout& layout, CpuOffload offload, DType dtype = DType::kFloat64) {
  RunConfig config = mesh_config(layout.parallel, dtype, kRows, kLongest);
  config.training.micro_batch = layout.micro_batch;
  config.parallel.cpu_offload = offload;
  return config;
}

std::vector<CpuOffload> offloads(const Layout& layout) {
  return layout.parallel.zero_stage == 3
             ? std::vector{CpuOffload::kOptimizer, CpuOffload::kParametersAndOptimizer}
             : std::vector{CpuOffload::kOptimizer};
}

/// Loss and norm of every step, the held-out loss, and the weights after all of it.
struct Course {
  std::vector<double> curve;
  std::map<std::string, std::vector<double>> weights;
};

void take_steps(MeshRun& run, int begin, int end, Course& course) {
  for (int step = begin; step < end; ++step) {
    const StepResult result = run->step(mesh_batch(step, kRows, kLongest, false), kLearningRate);
    course.curve.push_back(result.loss);
    course.curve.push_back(result.grad_norm);
  }
}

void finish(MeshRun& run, Course& course) {
  course.curve.push_back(run->loss_sum(mesh_batch(1000, kRows, kLongest, false)));
  course.weights = run.weights();
}

Course course_of(const Layout& layout, CpuOffload offload, DType dtype) {
  Course course;
  MeshRun run(world(), config_of(layout, offload, dtype), mesh_model(layout.is_tied));
  take_steps(run, 0, kSteps, course);
  finish(run, course);
  return course;
}

/// Two steps, a checkpoint, and the rest by another run that keeps its shards elsewhere.
Course resumed_course(const Layout& layout, CpuOffload before, CpuOffload after, const std::string& folder) {
  const ModelConfig model = mesh_model(layout.is_tied);
  Course course;
  std::string path;
  {
    MeshRun run(world(), config_of(layout, before), model);
    take_steps(run, 0, 2, course);
    TrainingState state;
    state.step = 2;
    state.optimizer_step = 2;
    Checkpointing checkpoints(folder, {}, world());
    checkpoints.save(state,
                     checkpoint_sources(run->store(), run->trainer().optimizer(), model, run->layout().at));
    path = checkpoints.last_saved();
  }
  MeshRun run(world(), config_of(layout, after), model);
  restore(*run, *open_checked_checkpoint(path, world()));
  take_steps(run, 2, kSteps, course);
  finish(run, course);
  return course;
}

}  // namespace

TEST_CASE("offloaded training has the bits of training without, clipped and accumulated",
          "[parallel][offload]") {
  const DType dtype = GENERATE(DType::kFloat64, DType::kFloat32);
  for (const Layout& layout : layouts()) {
    const Course expected = course_of(layout, CpuOffload::kNone, dtype);
    REQUIRE(expected.curve.front() > 0.0);
    for (const CpuOffload offload : offloads(layout)) {
      CAPTURE(layout.name, dtype_name(dtype), static_cast<int>(offload));
      const Course course = course_of(layout, offload, dtype);
      if (has_same_sums(layout)) {
        CHECK(course.curve == expected.curve);
        CHECK(course.weights == expected.weights);
        continue;
      }
      for (std::size_t i = 0; i < expected.curve.size(); ++i) {
        CHECK(std::abs(course.curve[i] - expected.curve[i]) <=
              10 * mesh_tolerance(dtype) * std::abs(expected.curve[i]));
      }
    }
  }
}

TEST_CASE("a run goes on from a checkpoint with its shards elsewhere, bit for bit", "[parallel][offload]") {
  const SharedFolder folder(world());
  int number = 0;
  for (const Layout& layout : layouts()) {
    if (!has_same_sums(layout)) {
      continue;
    }
    CAPTURE(layout.name);
    const Course expected = course_of(layout, CpuOffload::kNone, DType::kFloat64);
    for (const CpuOffload offload : offloads(layout)) {
      for (const auto& [before, after] : {std::pair(offload, offload), std::pair(offload, CpuOffload::kNone),
                                          std::pair(CpuOffload::kNone, offload)}) {
        CAPTURE(static_cast<int>(before), static_cast<int>(after));
        const Course course = resumed_course(layout, before, after, folder / std::to_string(number++));
        CHECK(course.curve == expected.curve);
        CHECK(course.weights == expected.weights);
      }
    }
  }
}

TEST_CASE("the plan moves what is offloaded from the device to the host, and a run keeps to it",
          "[parallel][offload]") {
  const ModelConfig model = mesh_model(false);
  const auto plan_of = [&](const Layout& layout, CpuOffload offload) {
    return make_plan(config_of(layout, offload), model, world().size()).trainer;
  };
  const auto in = [](const RankMemory::Categories& categories, const std::string& name) {
    for (const auto& [each, bytes] : categories) {
      if (each == name) {
        return bytes;
      }
    }
    return std::int64_t{0};
  };
  for (const Layout& layout : layouts()) {
    if (!is_divided(layout)) {
      continue;  // there the copy that is not offloaded has another store
    }
    CAPTURE(layout.name);
    const RankMemory without = plan_of(layout, CpuOffload::kNone);
    const std::int64_t moments = in(without.device, "AdamW moments");
    REQUIRE(moments > 0);
    CHECK(without.host.empty());
    std::int64_t before = RankMemory::sum(without.device);
    for (const CpuOffload offload : offloads(layout)) {
      CAPTURE(static_cast<int>(offload));
      const RankMemory with = plan_of(layout, offload);
      CHECK(in(with.device, "AdamW moments") == 0);
      CHECK(in(with.host, "AdamW moments") == moments);
      CHECK(in(with.host, "offloaded shards, staging") >= moments);  // values and gradients
      const std::int64_t device = RankMemory::sum(with.device);
      CHECK(device <= before - (offload == CpuOffload::kOptimizer ? moments : moments / 2));
      before = device;

      MeshRun run(world(), config_of(layout, offload), model);
      run->step(mesh_batch(0, kRows, kLongest, false), kLearningRate);
      const auto* store = dynamic_cast<const ShardedStore*>(&run->store());
      REQUIRE(store != nullptr);
      const SynchronousNeeds needs = measure_synchronous(config_of(layout, offload), model, run->layout());
      CHECK(store->device_bytes() == needs.store_bytes);
      CHECK(store->host_bytes() == needs.host_store_bytes);
    }
  }
}
