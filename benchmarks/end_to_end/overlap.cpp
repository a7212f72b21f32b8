// How much of a step's communication is hidden behind its computation, for DDP and FSDP. The same step runs
// in four ways that take turns: with nothing exchanged, with every exchange finished where it is started, and
// started beside the computation with the library called only where somebody waits, or between ops as well.
//
//   mpirun -n 2 benchmark_overlap [rounds] [hidden] [layers] [tokens per row] [bucket MiB ...]
//
// One thread a rank. Hidden share of a way = (finished at once − way) / (finished at once − nothing
// exchanged).
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "caravan/comm/mpi_session.h"
#include "caravan/core/build_info.h"
#include "caravan/core/clock.h"
#include "caravan/core/parallel_for.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/support/forwarding_communicator.h"
#include "tests/support/mesh_runs.h"

using namespace caravan;

namespace {

constexpr std::int64_t kRowsPerRank = 2;

enum class Way : std::uint8_t { kNothing, kAtOnce, kStarted, kProgress };
constexpr std::array kWays = {Way::kNothing, Way::kAtOnce, Way::kStarted, Way::kProgress};
constexpr std::array kWayNames = {"nothing exchanged", "finished at once", "started", "started, progress"};

/// What the groups of a run do at the moment, and how long its rank spent in them.
struct Behaviour {
  Way way = Way::kProgress;
  double waiting_seconds = 0.0;
  double progress_seconds = 0.0;
};

class SteeredCommunicator final : public test::ForwardingCommunicator {
 public:
  SteeredCommunicator(Communicator& inner, Behaviour& behaviour)
      : ForwardingCommunicator(inner), behaviour_(behaviour) {}
  SteeredCommunicator(std::unique_ptr<Communicator> inner, Behaviour& behaviour)
      : ForwardingCommunicator(std::move(inner)), behaviour_(behaviour) {}

 protected:
  std::unique_ptr<Communicator> do_split(int color, int key) override {
    return std::make_unique<SteeredCommunicator>(inner().split(color, key), behaviour_);
  }
  Pending do_start_all_reduce(const TensorView& values, ReduceOp op) override {
    return steer([&] { return inner().start_all_reduce(values, op); });
  }
  Pending do_start_all_gather(const TensorView& mine, const TensorView& gathered) override {
    return steer([&] { return inner().start_all_gather(mine, gathered); });
  }
  Pending do_start_reduce_scatter(const TensorView& values, const TensorView& mine) override {
    return steer([&] { return inner().start_reduce_scatter(values, mine); });
  }
  void do_progress() override {
    if (behaviour_.way == Way::kProgress) {
      const StopWatch watch;
      inner().progress();
      behaviour_.progress_seconds += watch.seconds();
    }
  }

 private:
  template <class Start>
  Pending steer(const Start& start) {
    if (behaviour_.way == Way::kNothing) {
      return {};
    }
    auto started = std::make_shared<Pending>(start());
    Pending timed([this, started] {
      const StopWatch watch;
      started->wait();
      behaviour_.waiting_seconds += watch.seconds();
    });
    if (behaviour_.way == Way::kAtOnce) {
      timed.wait();
      return {};
    }
    return timed;
  }

  Behaviour& behaviour_;
};

struct Sizes {
  std::int64_t hidden = 512;
  std::int64_t layers = 8;
  std::int64_t seq_len = 64;
};

ModelConfig model_of(const Sizes& sizes) {
  ModelConfig model = *model_preset("tiny");
  model.hidden_size = sizes.hidden;
  model.intermediate_size = sizes.hidden * 8 / 3 / 64 * 64;
  model.n_layers = sizes.layers;
  model.n_heads = sizes.hidden / 64;
  model.n_kv_heads = std::max<std::int64_t>(1, model.n_heads / 4);
  model.head_dim = 64;
  model.vocab_size = 4096;
  return model;
}

/// Seconds of one step from a barrier to the end of the slowest rank.
struct Sample {
  double step = 0.0;
  double waiting = 0.0;
  double progress = 0.0;
};

class Division {
 public:
  Division(std::string name, const ParallelSection& parallel, const Sizes& sizes, Communicator& world)
      : name_(std::move(name)),
        world_(world),
        steered_(world, behaviour_),
        run_(steered_, config_of(parallel, sizes, world), model_of(sizes)),
        batch_(test::mesh_batch(0, kRowsPerRank * world.size(), sizes.seq_len, false)) {}

  Sample step(Way way) {
    behaviour_ = {.way = way};
    world_.barrier();
    const StopWatch watch;
    run_->step(batch_, 1e-30);  // the weights stay what they are: what is not exchanged does no harm
    Sample sample{watch.seconds(), behaviour_.waiting_seconds, behaviour_.progress_seconds};
    for (double* value : {&sample.step, &sample.waiting, &sample.progress}) {
      *value = world_.all_reduce_value(*value, ReduceOp::kMax);
    }
    return sample;
  }
  const std::string& name() const { return name_; }

 private:
  static RunConfig config_of(const ParallelSection& parallel, const Sizes& sizes, const Communicator& world) {
    RunConfig config =
        test::mesh_config(parallel, DType::kFloat32, kRowsPerRank * world.size(), sizes.seq_len);
    config.training.micro_batch = kRowsPerRank;
    return config;
  }

  std::string name_;
  Communicator& world_;
  Behaviour behaviour_;
  SteeredCommunicator steered_;
  test::MeshRun run_;
  Batch batch_;
};

double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(std::lround(q * static_cast<double>(values.size() - 1)))];
}

void report(const Division& division, const std::array<std::vector<Sample>, 4>& samples) {
  const auto column = [&](std::size_t way, double Sample::*field, double q) {
    std::vector<double> values;
    for (const Sample& sample : samples.at(way)) {
      values.push_back(sample.*field * 1e3);
    }
    return quantile(std::move(values), q);
  };
  const double nothing = column(0, &Sample::step, 0.5);
  const double at_once = column(1, &Sample::step, 0.5);
  for (std::size_t way = 0; way < kWays.size(); ++way) {
    const double step = column(way, &Sample::step, 0.5);
    const std::string hidden =
        way < 2 ? "" : fmt::format("{:.0f} %", 100.0 * (at_once - step) / (at_once - nothing));
    fmt::print("| {} | {} | {:.1f} | {:.1f} to {:.1f} | {:.1f} | {:.1f} | {} |\n", division.name(),
               kWayNames.at(way), step, column(way, &Sample::step, 0.25), column(way, &Sample::step, 0.75),
               column(way, &Sample::waiting, 0.5), column(way, &Sample::progress, 0.5), hidden);
  }
}

using SamplesByWay = std::array<std::vector<Sample>, 4>;

/// All divisions and ways in turns, `rounds` times.
std::vector<SamplesByWay> measure(const std::vector<std::unique_ptr<Division>>& divisions,
                                  std::int64_t rounds) {
  std::vector<SamplesByWay> samples(divisions.size());
  for (std::int64_t round = -1; round < rounds; ++round) {
    for (std::size_t d = 0; d < divisions.size(); ++d) {
      for (std::size_t i = 0; i < kWays.size(); ++i) {
        const std::size_t way = (i + static_cast<std::size_t>(round + 1)) % kWays.size();
        samples[d].at(way).push_back(divisions[d]->step(kWays.at(way)));
      }
    }
  }
  for (SamplesByWay& ways : samples) {
    for (std::vector<Sample>& way : ways) {
      way.erase(way.begin());  // the first round warms up
    }
  }
  return samples;
}

void run(int argc, char** argv) {
  Communicator& world = MpiSession::current().world();
  const auto number = [&](int index, std::int64_t otherwise) {
    return argc > index ? std::atoll(argv[index]) : otherwise;
  };
  const std::int64_t rounds = number(1, 15);
  const Sizes sizes{number(2, 512), number(3, 8), number(4, 64)};
  std::vector<double> buckets;
  for (int i = 5; i < argc; ++i) {
    buckets.push_back(std::atof(argv[i]));
  }
  if (buckets.empty()) {
    buckets = {25.0};
  }
  set_cpu_threads(1);
  std::vector<std::unique_ptr<Division>> divisions;
  for (const double bucket : buckets) {
    divisions.push_back(std::make_unique<Division>(
        fmt::format("DDP, buckets of {} MiB", bucket),
        ParallelSection{.dp_replicate = world.size(), .dp_shard = 1, .ddp_bucket_mib = bucket}, sizes,
        world));
  }
  for (const std::int64_t stage : {2, 3}) {
    divisions.push_back(std::make_unique<Division>(fmt::format("FSDP, stage {}", stage),
                                                   ParallelSection{.zero_stage = stage}, sizes, world));
  }
  const auto samples = measure(divisions, rounds);
  if (world.rank() != 0) {
    return;
  }
  fmt::print(
      "{} ranks, one thread each, {} parameters, {} rows of {} tokens a rank, {} rounds, float32; {}\n\n",
      world.size(), parameter_count(model_of(sizes)), kRowsPerRank, sizes.seq_len, rounds,
      build_info().commit);
  fmt::print("| division | exchange | step ms | quartiles | waiting ms | in progress calls ms | hidden |\n");
  fmt::print("|---|---|---|---|---|---|---|\n");
  for (std::size_t d = 0; d < divisions.size(); ++d) {
    report(*divisions[d], samples[d]);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    MpiSession session(argc, argv);
    run(argc, argv);
    return EXIT_SUCCESS;
  } catch (const std::exception& error) {
    fmt::print(stderr, "benchmark_overlap: {}\n", error.what());
    return EXIT_FAILURE;
  }
}
