// RANKS 1 2 4
// What every division of the bench's workloads sends and holds, against the formulas of the literature.
#include <catch2/catch.hpp>

#include "caravan/comm/mpi_session.h"
#include "kernels/cpu/cpu_backend.h"
#include "src/app/bench_measure.h"

using namespace caravan;
using namespace caravan::app;

namespace {

constexpr std::int64_t kHidden = 64;
constexpr std::int64_t kRows = 16;
constexpr WorkloadSize kLinear{.kind = WorkloadKind::kLinear, .hidden = kHidden, .batch = kRows};
constexpr WorkloadSize kBlock{
    .kind = WorkloadKind::kBlock, .hidden = 256, .batch = 4, .seq_len = 16, .layers = 4};

Measurement counts(const WorkloadSize& size, Division division) {
  Communicator& world = MpiSession::current().world();
  const auto backend = make_cpu_backend();
  return measure(world, world.size(), size, division, 0, *backend);
}

}  // namespace

TEST_CASE("two linear layers send activations under TP and weights under DP", "[app][bench]") {
  const std::int64_t ranks = MpiSession::current().world().size();
  if (ranks == 1) {
    for (const Division division : {Division::kTp, Division::kTpSp, Division::kDdp, Division::kFsdp}) {
      CHECK(counts(kLinear, division).sent_bytes == 0);
    }
    return;
  }
  const std::int64_t activations = kRows * kHidden * 4;
  const std::int64_t weights = 2 * kHidden * kHidden * 4;
  // Shoeybi et al. 2019: one sum forward, one backward. As halves, each half of a sum moves (p − 1)/p.
  CHECK(counts(kLinear, Division::kTp).sent_bytes == 2 * activations);
  CHECK(counts(kLinear, Division::kTpSp).sent_bytes == 4 * activations * (ranks - 1) / ranks);
  CHECK(counts(kLinear, Division::kDdp).sent_bytes == weights);
  // Rajbhandari et al. 2020, section 7: stage 3 gathers weights forward and backward and scatters gradients
  // once; the second layer, last forward and first backward, is gathered once, and a unit that found room
  // stays.
  const Measurement sharded = counts(kLinear, Division::kFsdp);
  CHECK(sharded.sent_bytes >= 2 * weights * (ranks - 1) / ranks);
  CHECK(sharded.sent_bytes <= 3 * weights * (ranks - 1) / ranks);
}

TEST_CASE("dividing weights divides their memory", "[app][bench]") {
  const std::int64_t ranks = MpiSession::current().world().size();
  const std::int64_t weights = 2 * kHidden * kHidden * 4;
  CHECK(counts(kLinear, Division::kDdp).memory_bytes >= 4 * weights);  // value, gradient, two moments
  CHECK(counts(kLinear, Division::kTp).memory_bytes <
        4 * weights / ranks + 8 * kRows * kHidden * 4 + 4 * weights / ranks / 10);
}

TEST_CASE("a block runs under every division", "[app][bench]") {
  const int ranks = MpiSession::current().world().size();
  for (const Division division : kDivisions) {
    CAPTURE(division_name(division));
    REQUIRE(division_problem(kBlock, division, ranks).empty());
    const Measurement measured = counts(kBlock, division);
    CHECK((measured.sent_bytes > 0) == (ranks > 1));
    CHECK(measured.memory_bytes > 0);
    CHECK(measured.seconds.empty());
  }
  CHECK(!division_problem(kLinear, Division::kCp, ranks).empty());
  CHECK(!division_problem(kLinear, Division::kPp, ranks).empty());
  CHECK(division_problem(kBlock, Division::kPp, 8).find("8 stages, but the model has only 4") !=
        std::string::npos);
  CHECK(!division_problem({.kind = WorkloadKind::kLinear, .hidden = 64, .batch = 7}, Division::kDdp, 2)
             .empty());
  CHECK(!division_problem(kBlock, Division::kTp, 3).empty());
}

TEST_CASE("a pipeline sends a step's stream forward and its gradient back, and divides the blocks' memory",
          "[app][bench]") {
  const std::int64_t ranks = MpiSession::current().world().size();
  const Measurement measured = counts(kBlock, Division::kPp);
  if (ranks == 1) {
    CHECK(measured.sent_bytes == 0);
    CHECK(measured.waiting_share == 0.0);
    return;
  }
  // Narayanan et al. 2021, section 3.2: [rows, tokens, hidden] each way over every border, however many
  // micro-batches; the ends have one border. Beside it go loss and norm, 16 bytes.
  const std::int64_t stream = kBlock.batch * kBlock.seq_len * kBlock.hidden * 4;
  CHECK(measured.sent_bytes - 16 == (ranks > 2 ? 2 : 1) * stream);
  CHECK(measured.waiting_share == Approx((static_cast<double>(ranks) - 1) / static_cast<double>(ranks)));
  const std::int64_t block = (2 * 256 * 256 + 2 * 256 * 64 + 3 * 256 * 896) * 4;
  CHECK(measured.memory_bytes >= 4 * 4 / ranks * block);  // value, gradient, two moments
  CHECK(measured.memory_bytes < counts(kBlock, Division::kDdp).memory_bytes * 3 / (ranks == 2 ? 5 : 10));
}

TEST_CASE("times are taken on some of the ranks while the others sleep", "[app][bench]") {
  Communicator& world = MpiSession::current().world();
  const auto backend = make_cpu_backend();
  const Measurement measured = measure(world, 1, kLinear, Division::kTp, 5, *backend);
  if (world.rank() == 0) {
    CHECK(measured.seconds.size() == 5);
    CHECK(percentile(measured.seconds, 50) > 0.0);
    CHECK(measured.rows_per_second() > 0.0);
  }
  if (world.size() > 1) {
    const Link link = measure_link(world);
    CHECK(link.latency_seconds > 0.0);
    CHECK(link.bytes_per_second > 1e6);
  }
}
