#include <catch2/catch.hpp>

#include "caravan/io/hdf5_file.h"
#include "src/app/bench_report.h"
#include "support/temporary_folder.h"

using namespace caravan;
using namespace caravan::app;
using namespace caravan::test;

namespace {

Measurement one_rank(Division division) {
  return {.division = division,
          .ranks = 1,
          .batch = 32,
          .seconds = {0.010, 0.012, 0.011},
          .update_seconds = 0.003,
          .memory_bytes = 1000};
}

Measurement counted(Division division, int ranks, std::int64_t batch) {
  return {.division = division,
          .ranks = ranks,
          .batch = batch,
          .calls = 2,
          .sent_bytes = 4000,
          .moved_bytes = 6000,
          .memory_bytes = 500};
}

}  // namespace

TEST_CASE("percentiles are values that occurred", "[app][bench]") {
  const std::vector<double> values = {5, 1, 4, 2, 3};
  CHECK(percentile(values, 50) == 3);
  CHECK(percentile(values, 95) == 5);
  CHECK(percentile(values, 20) == 1);
  CHECK(percentile(values, 21) == 2);
  CHECK(percentile({7}, 99) == 7);
}

TEST_CASE("a modelled time is divided work and messages", "[app][bench]") {
  const Link link{.latency_seconds = 1e-3, .bytes_per_second = 1e6};
  Measurement tp = counted(Division::kTp, 4, 32);
  model_time(tp, one_rank(Division::kTp), link);
  CHECK(tp.source == Source::kModelled);
  CHECK(tp.seconds.at(0) == Approx((0.011 - 0.003) / 4 + 0.003 / 4 + 2e-3 + 6e-3));
  // Copies of the weights are updated whole on every rank; four times the rows are the same work on each.
  Measurement ddp = counted(Division::kDdp, 4, 128);
  model_time(ddp, one_rank(Division::kDdp), link);
  CHECK(ddp.seconds.at(0) == Approx((0.011 - 0.003) + 0.003 + 2e-3 + 6e-3));
  // Four stages wait for three quarters of the work of four micro-batches.
  Measurement pp = counted(Division::kPp, 4, 32);
  pp.waiting_share =
      waiting_share({.kind = WorkloadKind::kBlock, .hidden = 64, .batch = 4, .layers = 4}, Division::kPp, 4);
  model_time(pp, one_rank(Division::kPp), link);
  CHECK(pp.seconds.at(0) == Approx((0.011 - 0.003) / 4 * 1.75 + 0.003 / 4 + 2e-3 + 6e-3));
}

TEST_CASE("report and file say which times were measured", "[app][bench]") {
  const TemporaryFolder folder;
  BenchResults results{
      .size = {.kind = WorkloadKind::kLinear, .hidden = 64, .batch = 32}, .steps = 3, .cores = 1};
  results.link = Link{.latency_seconds = 1e-3, .bytes_per_second = 1e6};
  for (const std::int64_t batch : {32, 128}) {
    Measurement four = counted(Division::kDdp, 4, batch);
    model_time(four, one_rank(Division::kDdp), *results.link);
    auto& rows = batch == 32 ? results.fixed : results.growing;
    rows = {one_rank(Division::kDdp), four};
  }
  CHECK(efficiency(results, results.growing[1]) == Approx(0.011 / 0.019));
  const std::string text = markdown(results);
  CHECK(text.find("| DDP | 1 | 11.00 | 12.00 | 12.00 | 2909.1 | 0 B | 0 | 1000 B | measured |") !=
        std::string::npos);
  CHECK(text.find("| DDP | 4 | 13.00 | – | – |") != std::string::npos);
  CHECK(text.find("| DDP | 4 | 128 | 19.00 | 57.9 % | modelled |") != std::string::npos);
  CHECK(text.find("CP and PP are not in the table") != std::string::npos);

  write_bench(folder / "b.h5", results);
  const Hdf5File file = Hdf5File::open(folder / "b.h5");
  CHECK(file.text_attribute("workload") == "linear");
  CHECK(file.read_text("/fixed/times") == std::vector<std::string>{"measured", "modelled"});
  CHECK(file.read_int64("/fixed/sent_bytes") == std::vector<std::int64_t>{0, 4000});
  CHECK(file.read_float64("/growing/efficiency").at(0) == 1.0);
  CHECK(file.read_float64("/growing/p50_seconds").at(1) == Approx(0.019));
}

TEST_CASE("the report of blocks says how many there are, and how long pipelines wait", "[app][bench]") {
  BenchResults results{
      .size = {.kind = WorkloadKind::kBlock, .hidden = 64, .batch = 32, .seq_len = 8, .layers = 4}};
  results.fixed = {one_rank(Division::kPp), counted(Division::kPp, 4, 32)};
  results.fixed[1].seconds = {0.004};
  results.fixed[1].waiting_share = 0.75;
  results.growing = results.fixed;
  const std::string text = markdown(results);
  CHECK(text.starts_with("# Ways of dividing a step: 4 Llama blocks of hidden size 64"));
  CHECK(text.find("Every division trains the same 4 blocks.") != std::string::npos);
  CHECK(text.find("in units of its own work: 0.75 on 4 ranks.") != std::string::npos);
  CHECK(text.find("| PP | 4 | 4.00 |") != std::string::npos);
}
