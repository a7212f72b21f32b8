#include "bench_measure.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <numeric>
#include <span>
#include <thread>

#include "caravan/core/clock.h"
#include "caravan/core/error.h"

namespace caravan::app {
namespace {

/// Sleeps through what other ranks need their cores for: waiting inside the library would take one.
void sleep_through(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

/// The same on every rank: the largest of each.
void take_slowest(Communicator& ranks, std::vector<double>& seconds) {
  ranks.all_reduce(TensorView(seconds.data(), DType::kFloat64, {static_cast<std::int64_t>(seconds.size())}),
                   ReduceOp::kMax);
}

double timed(Communicator& ranks, const std::function<void()>& work) {
  ranks.barrier();
  const StopWatch watch;
  work();
  return watch.seconds();
}

double moved_bytes(const Traffic& traffic, int ranks) {
  const auto reduced = static_cast<double>(traffic[Collective::kAllReduce].sent_bytes);
  const double others = static_cast<double>(traffic.total().sent_bytes) - reduced;
  return others + reduced * 2.0 * (ranks - 1) / ranks;
}

/// Runs a step and counts.
void count_step(Workload& workload, Communicator& ranks, Measurement& result) {
  const Traffic before = workload.traffic();
  workload.step();
  const Traffic after = workload.traffic();
  Traffic step;
  for (std::size_t i = 0; i < kCollectiveCount; ++i) {
    const auto collective = static_cast<Collective>(i);
    step[collective].calls = after[collective].calls - before[collective].calls;
    step[collective].sent_bytes = after[collective].sent_bytes - before[collective].sent_bytes;
  }
  result.calls = ranks.all_reduce_value(step.total().calls, ReduceOp::kMax);
  result.sent_bytes = ranks.all_reduce_value(step.total().sent_bytes, ReduceOp::kMax);
  result.moved_bytes =
      ranks.all_reduce_value(static_cast<std::int64_t>(moved_bytes(step, ranks.size())), ReduceOp::kMax);
  result.memory_bytes = ranks.all_reduce_value(workload.memory_bytes(), ReduceOp::kMax);
}

/// Times `steps` steps, and gradients alone `more` times.
void time_steps(Workload& workload, Communicator& ranks, std::int64_t steps, std::int64_t more,
                Measurement& result) {
  for (std::int64_t step = 0; step < steps; ++step) {
    result.seconds.push_back(timed(ranks, [&] { workload.step(); }));
  }
  std::vector<double> without_update;
  for (std::int64_t step = 0; step < more; ++step) {
    without_update.push_back(timed(ranks, [&] { workload.gradients(); }));
  }
  take_slowest(ranks, result.seconds);
  take_slowest(ranks, without_update);
  result.update_seconds = std::max(0.0, percentile(result.seconds, 50) - percentile(without_update, 50));
}

/// Of the sum of `values` over the ranks; one more than `repetitions`, the first of which warms up.
double median_sum(Communicator& ranks, std::span<float> values, int repetitions) {
  const TensorView view(values.data(), DType::kFloat32, {static_cast<std::int64_t>(values.size())});
  std::vector<double> seconds;
  for (int i = 0; i <= repetitions; ++i) {
    seconds.push_back(timed(ranks, [&] { ranks.all_reduce(view); }));
  }
  seconds.erase(seconds.begin());
  take_slowest(ranks, seconds);
  return percentile(seconds, 50);
}

}  // namespace

double percentile(std::vector<double> values, double percent) {
  CARAVAN_CHECK(!values.empty() && percent > 0.0 && percent <= 100.0, "percentile {} of {} values", percent,
                values.size());
  std::sort(values.begin(), values.end());
  const double rank = std::ceil(percent / 100.0 * static_cast<double>(values.size()));
  return values[static_cast<std::size_t>(std::max(rank, 1.0)) - 1];
}

double Measurement::rows_per_second() const {
  const double sum = std::accumulate(seconds.begin(), seconds.end(), 0.0);
  return sum > 0.0 ? static_cast<double>(batch) * static_cast<double>(seconds.size()) / sum : 0.0;
}

Measurement measure(Communicator& world, int ranks, const WorkloadSize& size, Division division,
                    std::int64_t steps, Backend& backend) {
  Measurement result{.division = division, .ranks = ranks, .batch = size.batch};
  result.waiting_share = waiting_share(size, division, ranks);
  const bool takes_part = world.rank() < ranks;
  const auto group = world.split(takes_part ? 0 : 1, world.rank());
  std::unique_ptr<Workload> workload;
  double expected_seconds = 0.0;
  if (takes_part) {
    workload = make_workload(size, division, *group, backend);
    workload->step();  // the first touches all memory
    expected_seconds = timed(*group, [&] { count_step(*workload, *group, result); });
  }
  if (steps >= 2) {
    expected_seconds = world.all_reduce_value(expected_seconds, ReduceOp::kMax);
    const std::int64_t more = std::max<std::int64_t>(1, steps / 4);  // without the update
    if (takes_part) {
      time_steps(*workload, *group, steps, more, result);
    } else {
      // A tenth less, so that nobody waits for sleepers.
      sleep_through(0.9 * expected_seconds * static_cast<double>(steps + more));
    }
  }
  workload.reset();
  world.barrier();
  return result;
}

Link measure_link(Communicator& world) {
  constexpr std::int64_t kLarge = std::int64_t{1} << 22U;  // 16 MiB of float32
  const bool takes_part = world.rank() < 2;
  const auto pair = world.split(takes_part ? 0 : 1, world.rank());
  std::vector<double> sums = {0.0, 0.0};
  if (takes_part) {
    std::vector<float> values(static_cast<std::size_t>(kLarge), 0.0F);
    sums = {median_sum(*pair, {values.data(), 1}, 200), median_sum(*pair, values, 10)};
  } else {
    sleep_through(0.5);
  }
  world.broadcast(TensorView(sums.data(), DType::kFloat64, {2}), 0);
  return {.latency_seconds = sums[0],
          .bytes_per_second = static_cast<double>(kLarge * 4) / std::max(sums[1] - sums[0], 1e-9)};
}

void model_time(Measurement& counted, const Measurement& one_rank, const Link& link) {
  const double share =
      static_cast<double>(counted.batch) / static_cast<double>(one_rank.batch) / counted.ranks;
  const bool divides_update = counted.division != Division::kDdp && counted.division != Division::kCp;
  const double work =
      (percentile(one_rank.seconds, 50) - one_rank.update_seconds) * share * (1.0 + counted.waiting_share);
  const double update = one_rank.update_seconds / (divides_update ? counted.ranks : 1);
  counted.source = Source::kModelled;
  counted.seconds = {work + update + link.seconds(counted)};
  counted.update_seconds = update;
}

}  // namespace caravan::app
