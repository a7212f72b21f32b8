// RANKS 2 4
// When ZeRO 3 brings weights together: one unit ahead of the computation, and how many are whole at a time.
#include "caravan/parallel/sharded_store.h"

#include <algorithm>
#include <catch2/catch.hpp>

#include "caravan/comm/mpi_session.h"
#include "tests/support/forwarding_communicator.h"
#include "tests/support/mesh_runs.h"
#include "tests/support/recording_backend.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr std::int64_t kRows = 8;
constexpr std::int64_t kLongest = 21;

// Matrix products of a segment: q, k, v, o; gate, up, down. Backward has two for each.
constexpr int kAttention = 4;
constexpr int kMlp = 3;

/// What happens on this rank, in order.
struct Watched {
  int products = 0;  // so far
  struct Gather {
    int begin = 0;  // products before it was started
    int end = 0;    // and before somebody waited for it
  };
  std::vector<Gather> gathers;

  /// How many products were computed while each gather was under way.
  std::vector<int> products_beside_gathers() const {
    std::vector<int> beside;
    for (const Gather& gather : gathers) {
      beside.push_back(gather.end - gather.begin);
    }
    return beside;
  }
};

/// Notes the gathers of the groups made of it.
class GatherWatch final : public ForwardingCommunicator {
 public:
  GatherWatch(Communicator& inner, Watched& watched) : ForwardingCommunicator(inner), watched_(watched) {}
  GatherWatch(std::unique_ptr<Communicator> inner, Watched& watched)
      : ForwardingCommunicator(std::move(inner)), watched_(watched) {}

 protected:
  std::unique_ptr<Communicator> do_split(int color, int key) override {
    return std::make_unique<GatherWatch>(inner().split(color, key), watched_);
  }
  Pending do_start_all_gather(const TensorView& mine, const TensorView& gathered) override {
    const std::size_t index = watched_.gathers.size();
    watched_.gathers.push_back({watched_.products, -1});
    auto started = std::make_shared<Pending>(inner().start_all_gather(mine, gathered));
    return Pending([this, index, started] {
      watched_.gathers.at(index).end = watched_.products;
      started->wait();
    });
  }

 private:
  Watched& watched_;
};

Communicator& world() {
  return MpiSession::current().world();
}

/// A run whose products and gathers are watched.
class WatchedRun {
 public:
  WatchedRun(const ParallelSection& parallel, std::int64_t micro_batch, int n_layers)
      : model_(mesh_model(false, n_layers)),
        cpu_(make_cpu_backend()),
        backend_(*cpu_,
                 [this](const std::string& op) { watched_.products += op.starts_with("matmul") ? 1 : 0; }),
        group_(world(), watched_) {
    config_ = mesh_config(parallel, DType::kFloat32, kRows, kLongest);
    config_.training.micro_batch = micro_batch;
    run_ = std::make_unique<SynchronousRun>(SynchronousRun::Setup{config_, model_, group_, backend_});
    run_->load(
        [](const Context& ctx, const std::vector<ParameterShard>& shards) { initialise(ctx, shards, 5); });
  }

  SynchronousRun& run() { return *run_; }
  const ShardedStore& store() { return dynamic_cast<const ShardedStore&>(run_->store()); }
  /// One step; what was gathered in it.
  Watched step() {
    watched_ = {};
    run_->step(mesh_batch(0, kRows, kLongest, false), 1e-3);
    return watched_;
  }

 private:
  RunConfig config_;
  ModelConfig model_;
  std::unique_ptr<Backend> cpu_;
  Watched watched_;
  RecordingBackend backend_;
  GatherWatch group_;
  std::unique_ptr<SynchronousRun> run_;
};

}  // namespace

TEST_CASE("the next unit is gathered from before the present one's first product until after its last",
          "[parallel][sharded]") {
  // Embedding (whose gather nothing hides), attention and MLP twice, head; the embedding has no product.
  const std::vector<int> forward = {0, 0, kAttention, kMlp, kAttention, kMlp};
  // The last layer is still there when the pass turns round; then each is gathered during the one behind it.
  const std::vector<int> backward = {2 * kAttention, 2 * kMlp, 2 * kAttention};
  std::vector<int> both = forward;
  both.insert(both.end(), backward.begin(), backward.end());
  const std::int64_t all_rows = kRows / world().size();
  WatchedRun resharded({}, all_rows, 2);
  WatchedRun kept({.reshard_after_forward = false}, all_rows, 2);
  for (int step = 0; step < 2; ++step) {
    CAPTURE(step);
    CHECK(resharded.step().products_beside_gathers() == both);
    CHECK(kept.step().products_beside_gathers() == forward);
  }
}

TEST_CASE("at most two units are in use at a time, and there is memory for two layers' and one end's",
          "[parallel][sharded]") {
  constexpr int kLayers = 6;
  const std::int64_t micro_batch = GENERATE(1, 2);
  std::vector<ParallelSection> meshes = {ParallelSection{}};
  if (world().size() == 4) {
    meshes.push_back({.dp_replicate = 2});
    meshes.push_back({.tp = 2});
    meshes.push_back({.pp = 2});
    meshes.push_back({.pp = 2, .pipeline_schedule = PipelineSchedule::kZeroBubble});
    meshes.push_back({.pp = 2, .pipeline_schedule = PipelineSchedule::kInterleaved, .stages_per_rank = 2});
  }
  for (const ParallelSection& parallel : meshes) {
    CAPTURE(parallel.dp_replicate, parallel.tp, parallel.pp, parallel.stages_per_rank, micro_batch);
    WatchedRun watched(parallel, micro_batch, kLayers);
    for (int step = 0; step < 2; ++step) {
      CHECK(watched.step().gathers.size() > 2 * kLayers / static_cast<std::size_t>(parallel.pp));
    }
    CHECK(watched.store().most_gathered_units() == 2);
    std::vector<std::int64_t> slots = watched.store().slots().values;
    std::sort(slots.begin(), slots.end());
    CHECK(slots.size() <= 3);  // the head of a last stage has room where a layer's unit was
    // Two layers' largest unit, the MLP, divided over tp, and the embedding or the head.
    std::int64_t mlp_bytes = 0;
    for (const Parameter& parameter : watched.run().model().parameters().all()) {
      if (parameter.name().find(".feed_forward.") != std::string::npos) {
        mlp_bytes = std::max(mlp_bytes, 3 * parameter.shape().numel() * 4);
      }
    }
    CHECK(std::count_if(slots.begin(), slots.end(), [&](std::int64_t bytes) {
            return bytes >= mlp_bytes && bytes < mlp_bytes + mlp_bytes / 10;
          }) == 2);
  }
}
