// The ranges of a step that profilers show (NVTX): which there are, and that each ends within the one around
// it.
#include <catch2/catch.hpp>

#include "caravan/train/trainer.h"
#include "tests/support/mesh_runs.h"
#include "tests/support/recording_backend.h"

using namespace caravan;
using namespace caravan::test;

TEST_CASE("a step is gradients, by segments, and the update on a profiler's timeline", "[train][timeline]") {
  const auto cpu = make_cpu_backend();
  RecordingBackend backend(*cpu);
  const LocalBoundary boundary;
  const LocalAttention attention;
  const LocalVocab vocab;
  Llama model(mesh_model(false), {.dtype = DType::kFloat32, .positions = 6}, backend,
              {boundary, attention, vocab});
  Trainer trainer(model, backend, {.limits = {.batch = 2, .seq_len = 6}, .optimizer = {}});
  initialise(trainer.executor().context(), whole_shards(model.parameters()), 1);
  const std::size_t before = backend.timeline().size();
  trainer.step(mesh_batch(0, 2, 6, false), 1e-3);

  std::vector<std::string> expected = {"gradients", "forward and backward"};
  const auto add = [&](const char* name, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      expected.insert(expected.end(), {name, "end"});
    }
  };
  add("segment forward", model.segments().size());
  add("head", 1);
  add("segment backward", model.segments().size());
  expected.insert(expected.end(), {"end", "end"});
  add("norm and update", 1);
  REQUIRE(model.segments().size() >= 4);
  const auto& seen = backend.timeline();
  CHECK(std::vector<std::string>(seen.begin() + static_cast<std::ptrdiff_t>(before), seen.end()) == expected);
}
