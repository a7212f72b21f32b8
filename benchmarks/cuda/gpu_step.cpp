// Training steps of a Llama model on one GPU in bfloat16, on random tokens: tokens per second, MFU by both
// conventions, memory, and in the same run the rates of a large product and of a copy on this GPU, which are
// what the step can reach at best.
//
// Usage: benchmark_gpu_step [--model llama3.2-1b] [--seq-len 1024] [--rows 16] [--micro-batches 16] [--steps
// 20]
//                           [--recompute none|selective|full] [--dtype bfloat16|float32]
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "caravan/core/clock.h"
#include "caravan/core/counter_rng.h"
#include "caravan/core/error.h"
#include "caravan/train/trainer.h"
#include "kernels/cuda/open_device.h"

using namespace caravan;

namespace {

// Dense bfloat16 rate of H100 and H200 SXM (NVIDIA's data sheets): what published MFU figures are held
// against.
constexpr double kPeakFlops = 989e12;
constexpr int kWarmUpSteps = 3;

/// The largest and the smallest of an odd number of times say how far to trust the median.
struct Times {
  std::vector<double> seconds;
  double at(double part) const {
    std::vector<double> sorted = seconds;
    std::sort(sorted.begin(), sorted.end());
    return sorted.at(static_cast<std::size_t>(part * static_cast<double>(sorted.size() - 1)));
  }
  double median() const { return at(0.5); }
};

class Ceilings {
 public:
  Ceilings(Backend& backend, cuda::DeviceRuntime& runtime) : backend_(backend), runtime_(runtime) {}

  /// FLOP/s of a bfloat16 product of random 8192 x 8192 matrices: zeros take less power and run faster.
  double product() {
    constexpr std::int64_t kSize = 8192;
    constexpr int kCalls = 20;
    std::array<Buffer, 3> memory;
    std::array<TensorView, 3> views;
    for (std::size_t i = 0; i < 3; ++i) {
      memory[i] = backend_.allocate(2 * kSize * kSize);
      views[i] = memory[i].view(0, DType::kBFloat16, {kSize, kSize});
      backend_.random_normal({.y = views[i], .global_cols = kSize, .standard_deviation = 1.0, .stream = i},
                             stream_);
    }
    const auto calls = [&] {
      for (int i = 0; i < kCalls; ++i) {
        backend_.matmul_nt({views[0], DenseWeight{views[1]}, views[2]}, stream_);
      }
    };
    return 2.0 * kSize * kSize * kSize * kCalls / timed(calls);
  }
  /// Bytes read and written per second by copies of 4 GiB.
  double copy() {
    constexpr std::int64_t kBytes = std::int64_t{4} << 30U;
    constexpr int kCalls = 8;
    const Buffer from = backend_.allocate(kBytes);
    const Buffer to = backend_.allocate(kBytes);
    const auto calls = [&] {
      for (int i = 0; i < kCalls; ++i) {
        runtime_.copy(to.data(), from.data(), kBytes, runtime_.stream(StreamId::kCompute));
      }
    };
    return 2.0 * static_cast<double>(kBytes) * kCalls / timed(calls);
  }

 private:
  template <class Body>
  double timed(const Body& body) {
    const auto once = [&] {
      const StopWatch watch;
      body();
      runtime_.synchronize(runtime_.stream(StreamId::kCompute));
      return watch.seconds();
    };
    once();
    return std::min({once(), once(), once()});
  }

  Backend& backend_;
  cuda::DeviceRuntime& runtime_;
  Stream stream_;
};

Batch random_batch(const ModelConfig& config, std::int64_t rows, std::int64_t seq_len, std::uint64_t number) {
  Batch batch;
  batch.batch = rows;
  batch.seq_len = seq_len;
  batch.valid_tokens = rows * seq_len;
  const CounterRng rng(1, number);
  for (std::int64_t t = 0; t < batch.n_tokens(); ++t) {
    const auto draw = [&](std::int64_t which) {
      return static_cast<std::int32_t>(rng.uniform(static_cast<std::uint64_t>(2 * t + which)) *
                                       static_cast<double>(config.vocab_size));
    };
    batch.ids.push_back(draw(0));
    batch.targets.push_back(draw(1));
    batch.target_weights.push_back(1.0F);
    batch.index.push_back(static_cast<std::int32_t>(t % seq_len));
    batch.document_start.push_back(0);
  }
  return batch;
}

/// FLOPs per token of forward and backward: 6 per parameter of a product, and of attention 12 · L · H · E · S
/// for the whole square, half of it for the causal triangle (Chowdhery et al. 2022, appendix B).
struct TokenFlops {
  double products = 0.0;
  double square = 0.0;
};
TokenFlops token_flops(const ModelConfig& c, std::int64_t seq_len) {
  const std::int64_t layer = c.hidden_size * (2 * c.n_heads + 2 * c.n_kv_heads) * c.head_dim +
                             3 * c.hidden_size * c.intermediate_size;
  return {6.0 * static_cast<double>(c.n_layers * layer + c.vocab_size * c.hidden_size),
          12.0 * static_cast<double>(c.n_layers * c.n_heads * c.head_dim * seq_len)};
}

std::map<std::string, std::string> parse(int argc, char** argv) {
  std::map<std::string, std::string> options = {
      {"--model", "llama3.2-1b"}, {"--seq-len", "1024"},   {"--rows", "16"},       {"--micro-batches", "16"},
      {"--steps", "20"},          {"--recompute", "none"}, {"--dtype", "bfloat16"}};
  for (int i = 1; i < argc; i += 2) {
    const auto known = options.find(argv[i]);
    if (known == options.end() || i + 1 == argc) {
      fail<ConfigError>("benchmark_gpu_step: {}: unknown option, or no value after it", argv[i]);
    }
    known->second = argv[i + 1];
  }
  return options;
}

struct Workload {
  std::string name;
  ModelConfig config;
  std::int64_t seq_len = 0;
  std::int64_t rows = 0;
  std::int64_t micro_batches = 0;
  std::int64_t steps = 0;
  std::string recompute;
  std::string dtype;
};

Workload workload_of(const std::map<std::string, std::string>& options) {
  const auto number = [&](const char* name) { return std::atoll(options.at(name).c_str()); };
  const auto found = model_preset(options.at("--model"));
  if (!found) {
    fail<ConfigError>("benchmark_gpu_step: no model is named {}", options.at("--model"));
  }
  return {.name = options.at("--model"),
          .config = *found,
          .seq_len = number("--seq-len"),
          .rows = number("--rows"),
          .micro_batches = number("--micro-batches"),
          .steps = number("--steps"),
          .recompute = options.at("--recompute"),
          .dtype = options.at("--dtype")};
}

struct Measured {
  Times times;
  double loss = 0.0;
  std::int64_t tokens = 0;  // of a step
  std::int64_t arena_bytes = 0;
};

Measured train(const Workload& work, Backend& backend) {
  const Llama::Layout layout{.table = ShardTable::kWhole,
                             .dtype = work.dtype == "float32" ? DType::kFloat32 : DType::kBFloat16,
                             .gradients = Gradients::kAllocated,
                             .positions = work.seq_len};
  const LocalBoundary boundary;
  const LocalAttention attention;
  const LocalVocab vocab;
  Llama model(work.config, layout, backend, {boundary, attention, vocab});
  Trainer::Options training{.limits = {.batch = work.rows,
                                       .seq_len = work.seq_len,
                                       .policy = work.recompute == "full"        ? SavePolicy::full()
                                                 : work.recompute == "selective" ? SavePolicy::selective()
                                                                                 : SavePolicy::none()},
                            .optimizer = {},
                            .clip_norm = 1.0};
  Trainer trainer(model, backend, training);
  initialise(trainer.update_context(), whole_shards(model.parameters()), 1);
  Measured measured;
  std::vector<Batch> batches;
  for (std::int64_t i = 0; i < work.micro_batches; ++i) {
    batches.push_back(random_batch(work.config, work.rows, work.seq_len, static_cast<std::uint64_t>(i)));
    measured.tokens += batches.back().valid_tokens;
  }
  for (std::int64_t step = -kWarmUpSteps; step < work.steps; ++step) {
    const StepResult result = trainer.step(batches, measured.tokens, 1e-4);
    measured.loss = result.loss;
    if (step >= 0) {
      measured.times.seconds.push_back(result.seconds);
    }
  }
  measured.arena_bytes = trainer.executor().arena_bytes();
  return measured;
}

void run(const Workload& work) {
  cuda::OpenDevice device = cuda::open_device(0);
  Ceilings ceilings(*device.backend, *device.runtime);
  const double product_before = ceilings.product();
  const double copy_rate = ceilings.copy();
  const Measured measured = train(work, *device.backend);
  const double product_after = ceilings.product();
  const TokenFlops flops = token_flops(work.config, work.seq_len);
  const Times& times = measured.times;
  const double rate = static_cast<double>(measured.tokens) / times.median();
  const double causal = rate * (flops.products + flops.square / 2.0);
  const double full = rate * (flops.products + flops.square);
  const double ceiling = std::max(product_before, product_after);
  fmt::print("{} on {}, {}, {} x {} tokens x {} micro-batches, recompute {}\n", work.name,
             device.runtime->facts().name, work.dtype, work.rows, work.seq_len, work.micro_batches,
             work.recompute);
  fmt::print("step             {:.4f} s ({:.4f} to {:.4f}, {} steps), loss {:.4f}\n", times.median(),
             times.at(0.0), times.at(1.0), times.seconds.size(), measured.loss);
  fmt::print("tokens/s         {:.0f}\n", rate);
  fmt::print("MFU of 989       causal {:.1f} %, full square {:.1f} %\n", 100.0 * causal / kPeakFlops,
             100.0 * full / kPeakFlops);
  fmt::print(
      "product 8192^3   {:.0f} TFLOP/s before, {:.0f} after; the step reaches {:.1f} % of it (causal)\n",
      product_before / 1e12, product_after / 1e12, 100.0 * causal / ceiling);
  fmt::print("copy             {:.2f} TB/s read and written\n", copy_rate / 1e12);
  fmt::print("memory           {:.2f} GiB of activations and scratch\n",
             static_cast<double>(measured.arena_bytes) / 1073741824.0);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Workload work = workload_of(parse(argc, argv));
    if (const cuda::DeviceCount found = cuda::count_devices(); found.count == 0) {
      fmt::print("skipped: {}\n", found.reason_for_none);
      return 77;
    }
    run(work);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}
