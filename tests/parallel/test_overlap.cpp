// RANKS 2 4
// TIMEOUT 300
// What data parallelism has under way while the model computes: when it starts, that it gets to move, and
// that neither changes what comes out.
#include <algorithm>
#include <catch2/catch.hpp>

#include "caravan/comm/mpi_session.h"
#include "tests/support/forwarding_communicator.h"
#include "tests/support/mesh_runs.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr std::int64_t kRows = 8;
constexpr std::int64_t kLongest = 21;

/// What was started, in the order of starting: how often the library was called until somebody waited.
struct Started {
  bool is_all_reduce = false;
  std::int64_t bytes = 0;
  int advances = 0;
  bool is_open = true;
};

/// Notes what the groups made of it start.
class WatchedCommunicator final : public ForwardingCommunicator {
 public:
  WatchedCommunicator(Communicator& inner, std::vector<Started>& log)
      : ForwardingCommunicator(inner), log_(log) {}
  WatchedCommunicator(std::unique_ptr<Communicator> inner, std::vector<Started>& log)
      : ForwardingCommunicator(std::move(inner)), log_(log) {}

 protected:
  std::unique_ptr<Communicator> do_split(int color, int key) override {
    return std::make_unique<WatchedCommunicator>(inner().split(color, key), log_);
  }
  Pending do_start_all_reduce(const TensorView& values, ReduceOp op) override {
    return watch(true, values.bytes(), inner().start_all_reduce(values, op));
  }
  Pending do_start_all_gather(const TensorView& mine, const TensorView& gathered) override {
    return watch(false, gathered.bytes(), inner().start_all_gather(mine, gathered));
  }
  Pending do_start_reduce_scatter(const TensorView& values, const TensorView& mine) override {
    return watch(false, values.bytes(), inner().start_reduce_scatter(values, mine));
  }
  void do_progress() override {
    for (const std::size_t i : open_) {
      log_[i].advances += log_[i].is_open ? 1 : 0;
    }
    inner().progress();
  }

 private:
  Pending watch(bool is_all_reduce, std::int64_t bytes, Pending pending) {
    const std::size_t index = log_.size();
    log_.push_back({.is_all_reduce = is_all_reduce, .bytes = bytes});
    open_.push_back(index);
    return Pending([this, index, started = std::make_shared<Pending>(std::move(pending))] {
      log_[index].is_open = false;
      started->wait();
    });
  }

  std::vector<Started>& log_;
  std::vector<std::size_t> open_;
};

Communicator& world() {
  return MpiSession::current().world();
}

RunConfig config_of(const ParallelSection& parallel) {
  RunConfig config = mesh_config(parallel, DType::kFloat64, kRows, kLongest);
  config.training.micro_batch = 1;  // several of them: what is summed once must be summed once
  return config;
}

ParallelSection ddp(double bucket_mib) {
  return {.dp_replicate = world().size(), .dp_shard = 1, .ddp_bucket_mib = bucket_mib};
}

/// One step's gradients, and what was started in it.
MeshGradients watched(const ParallelSection& parallel, const Batch& batch, std::vector<Started>& log) {
  WatchedCommunicator watcher(world(), log);
  MeshRun run(watcher, config_of(parallel), mesh_model(false));
  log.clear();
  return run.gradients(batch);
}

constexpr double kEverySingleGroup = 1e-6;
constexpr double kAllInOne = 1000;
constexpr int kGroups = 6;  // embedding, two layers of two, head

}  // namespace

TEST_CASE("DDP sums whole groups in buckets of at least the size asked for, the head's first",
          "[parallel][overlap]") {
  const Batch batch = mesh_batch(0, kRows, kLongest, false);
  const auto bytes_of = [&](double bucket_mib) {
    std::vector<Started> log;
    watched(ddp(bucket_mib), batch, log);
    std::vector<std::int64_t> bytes;
    for (const Started& each : log) {
      bytes.push_back(each.bytes);
    }
    return bytes;
  };
  const std::vector<std::int64_t> single = bytes_of(kEverySingleGroup);
  REQUIRE(single.size() == kGroups);
  CHECK(bytes_of(kAllInOne).size() == 1);
  // A little more than the head's needs the group before it too; padding between groups may come on top.
  const double head_mib = static_cast<double>(single.front()) / (1 << 20);
  const std::vector<std::int64_t> pairs = bytes_of(head_mib * 1.001);
  REQUIRE(pairs.size() < kGroups);
  CHECK(pairs.front() >= single[0] + single[1]);
  CHECK(pairs.front() < single[0] + single[1] + 64);
  for (std::size_t i = 0; i + 1 < pairs.size(); ++i) {
    CHECK(static_cast<double>(pairs[i]) >= head_mib * (1 << 20));
  }
}

TEST_CASE("buckets change no gradient, and a run again gives the same bits", "[parallel][overlap]") {
  const Batch batch = mesh_batch(1, kRows, kLongest, true);
  SelfCommunicator self;
  RunConfig alone = config_of({.dp_shard = 1});
  const MeshGradients expected = MeshRun(self, alone, mesh_model(false)).gradients(batch);
  for (const double bucket_mib : {kEverySingleGroup, 0.1, kAllInOne}) {
    CAPTURE(bucket_mib);
    const MeshGradients once =
        MeshRun(world(), config_of(ddp(bucket_mib)), mesh_model(false)).gradients(batch);
    const MeshGradients again =
        MeshRun(world(), config_of(ddp(bucket_mib)), mesh_model(false)).gradients(batch);
    CHECK(once.loss == again.loss);
    CHECK(once.values == again.values);
    for (const auto& [name, values] : once.values) {
      CAPTURE(name);
      CHECK(relative_difference(values, expected.values.at(name)) <= mesh_tolerance(DType::kFloat64));
    }
  }
}

TEST_CASE("a bucket is under way while earlier layers compute, and gets to move between their ops",
          "[parallel][overlap]") {
  const Batch batch = mesh_batch(0, kRows, kLongest, false);
  std::vector<Started> log;
  watched(ddp(kEverySingleGroup), batch, log);
  REQUIRE(log.size() == kGroups);
  for (std::size_t i = 0; i + 1 < log.size(); ++i) {
    CAPTURE(i);
    CHECK(log[i].advances > 0);
    if (i > 0) {
      CHECK(log[i].advances < log[i - 1].advances);  // started later, waited on after the same last op
    }
  }
  CHECK(log.back().advances == 0);  // the embedding's: nothing computes after it
}

TEST_CASE("FSDP's gathers and reductions get to move between ops", "[parallel][overlap]") {
  const Batch batch = mesh_batch(0, kRows, kLongest, false);
  const std::int64_t zero_stage = GENERATE(1, 2, 3);
  const std::int64_t pp = GENERATE(1, 2);
  if (pp == world().size()) {
    return;  // nobody is left to divide a stage with
  }
  std::vector<Started> log;
  watched({.pp = pp, .zero_stage = zero_stage}, batch, log);
  CAPTURE(zero_stage, pp, log.size());
  REQUIRE(!log.empty());
  const auto moved =
      std::count_if(log.begin(), log.end(), [](const Started& each) { return each.advances > 0; });
  // Of a step's last reduction, and of the first gather of all, nobody computes beside them; the embedding,
  // which is no product, is over before anybody gets the word.
  CHECK(moved >= static_cast<std::ptrdiff_t>(log.size()) / 2);
}

TEST_CASE("HSDP sums over copies while earlier layers compute", "[parallel][overlap]") {
  if (world().size() < 4) {
    return;  // two axes need two ranks each
  }
  const Batch batch = mesh_batch(2, kRows, kLongest, false);
  const std::int64_t zero_stage = GENERATE(2, 3);
  std::vector<Started> log;
  const MeshGradients once = watched({.dp_replicate = 2, .zero_stage = zero_stage}, batch, log);
  std::vector<Started> sums;
  std::copy_if(log.begin(), log.end(), std::back_inserter(sums),
               [](const Started& each) { return each.is_all_reduce; });
  CAPTURE(zero_stage);
  REQUIRE(sums.size() == kGroups);
  for (std::size_t i = 0; i < kGroups; ++i) {  // the embedding's gradient, which is last, is no product
    CAPTURE(i);
    CHECK((i + 2 >= kGroups || sums[i].advances > 0));
  }
  SelfCommunicator self;
  const MeshGradients expected =
      MeshRun(self, config_of({.dp_shard = 1}), mesh_model(false)).gradients(batch);
  for (const auto& [name, values] : once.values) {
    CAPTURE(name);
    CHECK(relative_difference(values, expected.values.at(name)) <= mesh_tolerance(DType::kFloat64));
  }
}
