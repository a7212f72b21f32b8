#include "caravan/model/lm_head.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "caravan/core/counter_rng.h"
#include "caravan/model/local_ports.h"
#include "kernels/cpu/cpu_backend.h"

using namespace caravan;

namespace {

constexpr std::int64_t kVocab = std::int64_t{1} << 18U;  // so many columns that a chunk has 64 rows
constexpr std::int64_t kHidden = 2;
constexpr std::int64_t kChunk = 64;

struct Result {
  std::vector<double> losses;
  std::vector<double> g;
  std::vector<double> doutput;
};

/// The head on rows [begin, end) of fixed random data.
class HeadBench {
 public:
  HeadBench()
      : backend_(make_cpu_backend()),
        parameters_({{.name = "norm.weight", .shape = {kHidden}, .shard = {}},
                     {.name = "output.weight", .shape = {kVocab, kHidden}, .shard = {}}},
                    {}, DType::kFloat64, *backend_, Gradients::kAllocated),
        store_(parameters_),
        scratch_("scratch", backend_->allocate(kChunk * kVocab * 8 + (1 << 20))) {
    fill(parameters_.at("norm.weight").stored_value(), 1);
    fill(parameters_.at("output.weight").stored_value(), 2);
  }

  Result run(std::int64_t begin, std::int64_t end) {
    const CounterRng rng(11, 3);
    const std::int64_t rows = end - begin;
    std::vector<double> x;
    std::vector<std::int32_t> targets;
    std::vector<float> weights;
    for (std::int64_t t = begin; t < end; ++t) {
      for (std::int64_t d = 0; d < kHidden; ++d) {
        x.push_back(rng.normal(static_cast<std::uint64_t>(t * kHidden + d)));
      }
      targets.push_back(static_cast<std::int32_t>(t * 3911 % kVocab));
      weights.push_back(t % 5 == 4 ? 0.0F : 1.0F);
    }
    Result result;
    result.losses.resize(static_cast<std::size_t>(rows));
    result.g.resize(static_cast<std::size_t>(rows * kHidden));
    StepScalars scalars;
    scalars.inv_valid_tokens = 1.0 / 80.0;
    Stream stream;
    Context ctx{*backend_, stream, scratch_, scalars, DType::kFloat64};
    TokenBatch batch;
    batch.batch = 1;
    batch.seq_len = rows;
    batch.targets = {targets.data(), DType::kInt32, {rows}};
    batch.target_weights = {weights.data(), DType::kFloat32, {rows}};
    ResidualStream residual{.x = {x.data(), DType::kFloat64, {rows, kHidden}}, .delta = {}};
    const LmHead head({.norm = parameters_.at("norm.weight"),
                       .output = parameters_.at("output.weight"),
                       .boundary = boundary_,
                       .vocab = vocab_,
                       .eps = 1e-5});
    const std::vector<int> groups = head.groups();
    const Lease lease(store_, groups);
    const TensorView doutput = parameters_.at("output.weight").stored_grad();
    std::fill_n(doutput.data<double>(), doutput.numel(), 0.0);
    head.loss_and_backward(ctx, batch, residual, {result.losses.data(), DType::kFloat64, {rows}},
                           {result.g.data(), DType::kFloat64, {rows, kHidden}});
    result.doutput.assign(doutput.data<double>(), doutput.data<double>() + doutput.numel());
    return result;
  }

 private:
  static void fill(const TensorView& view, std::uint64_t stream) {
    const CounterRng rng(11, stream);
    for (std::int64_t i = 0; i < view.numel(); ++i) {
      view.data<double>()[i] = rng.normal(static_cast<std::uint64_t>(i));
    }
  }

  std::unique_ptr<Backend> backend_;
  LocalBoundary boundary_;
  LocalVocab vocab_;
  ParameterSet parameters_;
  ReplicatedStore store_;
  Arena scratch_;
};

}  // namespace

TEST_CASE("a batch of several chunks of logits gives the losses and gradients of its chunks",
          "[model][lm_head]") {
  constexpr std::int64_t kRows = kChunk + 6;
  REQUIRE(LmHead::chunk_tokens(kVocab, kRows, DeviceKind::kCpu, DType::kFloat32) == kChunk);
  HeadBench bench;
  const Result whole = bench.run(0, kRows);
  const Result first = bench.run(0, kChunk);
  const Result second = bench.run(kChunk, kRows);
  for (std::int64_t t = 0; t < kRows; ++t) {
    INFO("row " << t);
    const Result& part = t < kChunk ? first : second;
    const auto row = static_cast<std::size_t>(t < kChunk ? t : t - kChunk);
    const auto at = static_cast<std::size_t>(t);
    CHECK(whole.losses[at] == Approx(part.losses[row]).epsilon(1e-13));
    CHECK((whole.losses[at] > 5.0) == (t % 5 != 4));  // ln V is 12.5; rows of weight 0 lose nothing
    for (std::size_t d = 0; d < kHidden; ++d) {
      CHECK(whole.g[at * kHidden + d] == Approx(part.g[row * kHidden + d]).epsilon(1e-11).margin(1e-17));
    }
  }
  double largest_error = 0.0;
  for (std::size_t i = 0; i < whole.doutput.size(); ++i) {
    largest_error =
        std::max(largest_error, std::abs(whole.doutput[i] - (first.doutput[i] + second.doutput[i])));
  }
  CHECK(largest_error < 1e-16);  // the largest gradients are near 1/80
}
