// Training steps of a Llama model on one GPU, on random tokens: tokens per second, MFU by both conventions,
// memory, and in the same run the rates of a large product and of a copy on this GPU, which are what the step
// can reach at best. Prints lines "key: value", which gpu_torch_step.py (the same step in PyTorch) and
// gpu_report.awk read.
//
// Usage: benchmark_gpu_step [--model llama3.2-1b] [--seq-len 1024] [--rows 16] [--micro-batches 16]
//     [--steps 20] [--seconds 1e9] [--recompute none|selective|full] [--dtype bfloat16|float32]
//     [--attention own|cudnn] [--ceiling-size 8192] [--sustain 2] [--ops no|yes]
// --rows are of a micro-batch, and halved while memory does not suffice; no step begins later than --seconds
// after the first, and one is always made. --sustain: seconds of products after the steps, at the clock that
// the power limit leaves. --ops yes: where the time goes. The steps run op by op, the host waits for each,
// and lines op_NAME_ms give each kind's time in a step; the step's own time is that of such steps then.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "benchmarks/cuda/ceilings.h"
#include "benchmarks/end_to_end/timing_backend.h"
#include "caravan/core/build_info.h"
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
      {"--model", "llama3.2-1b"}, {"--seq-len", "1024"},  {"--rows", "16"},        {"--micro-batches", "16"},
      {"--steps", "20"},          {"--seconds", "1e9"},   {"--recompute", "none"}, {"--dtype", "bfloat16"},
      {"--ceiling-size", "8192"}, {"--attention", "own"}, {"--sustain", "2"},      {"--ops", "no"}};
  for (int i = 1; i < argc; i += 2) {
    const auto known = options.find(argv[i]);
    if (known == options.end() || i + 1 == argc) {
      fail<ConfigError>("benchmark_gpu_step: {}: unknown option, or no value after it", argv[i]);
    }
    known->second = argv[i + 1];
  }
  return options;
}

/// The value of `name` if it is one of `words`.
const std::string& one_of(const std::map<std::string, std::string>& options, const char* name,
                          const std::vector<std::string>& words) {
  const std::string& value = options.at(name);
  if (std::find(words.begin(), words.end(), value) == words.end()) {
    fail<ConfigError>("benchmark_gpu_step: {} is {}; it may be {}", name, value, fmt::join(words, ", "));
  }
  return value;
}

struct Workload {
  std::string name;
  ModelConfig config;
  std::int64_t seq_len = 0;
  std::int64_t rows = 0;
  std::int64_t micro_batches = 0;
  std::int64_t steps = 0;
  double seconds = 0.0;  // no step begins later than this after the first
  std::string recompute;
  std::string dtype;
  std::string attention;
  std::int64_t ceiling_size = 0;
  double sustain = 0.0;  // seconds
  bool times_ops = false;
};

Workload workload_of(const std::map<std::string, std::string>& options) {
  const auto number = [&](const char* name) {
    const std::int64_t value = std::atoll(options.at(name).c_str());
    if (value < 1) {
      fail<ConfigError>("benchmark_gpu_step: {} is {}; it must be a number of at least 1", name,
                        options.at(name));
    }
    return value;
  };
  const auto found = model_preset(options.at("--model"));
  if (!found) {
    fail<ConfigError>("benchmark_gpu_step: --model is {}; it may be {}", options.at("--model"),
                      fmt::join(model_preset_names(), ", "));
  }
  return {.name = options.at("--model"),
          .config = *found,
          .seq_len = number("--seq-len"),
          .rows = number("--rows"),
          .micro_batches = number("--micro-batches"),
          .steps = number("--steps"),
          .seconds = std::atof(options.at("--seconds").c_str()),
          .recompute = one_of(options, "--recompute", {"none", "selective", "full"}),
          .dtype = one_of(options, "--dtype", {"bfloat16", "float32"}),
          .attention = one_of(options, "--attention", {"own", "cudnn"}),
          .ceiling_size = number("--ceiling-size"),
          .sustain = std::atof(options.at("--sustain").c_str()),
          .times_ops = one_of(options, "--ops", {"no", "yes"}) == "yes"};
}

struct Measured {
  Times times;
  double loss = 0.0;
  std::int64_t tokens = 0;         // of a step
  std::int64_t free_bytes = 0;     // when all had been allocated
  std::int64_t arena_bytes = 0;    // activations and scratch
  std::vector<double> op_seconds;  // of a step, by OpKind; empty unless they are timed
};

DType dtype_of(const Workload& work) {
  return work.dtype == "float32" ? DType::kFloat32 : DType::kBFloat16;
}

/// With what computes the attention of such micro-batches.
std::unique_ptr<Backend> backend_for(const Workload& work, cuda::DeviceRuntime& runtime) {
  if (work.attention == "own") {
    return make_cuda_backend(runtime);
  }
  const ModelConfig& c = work.config;
  auto attention = std::make_unique<cudnn::PlannedAttention>(
      runtime, cudnn::find().library,
      AttentionShape{.batch = work.rows,
                     .query_len = work.seq_len,
                     .key_len = work.seq_len,
                     .n_heads = c.n_heads,
                     .n_kv_heads = c.n_kv_heads,
                     .head_dim = c.head_dim,
                     .scale = 1.0 / std::sqrt(static_cast<double>(c.head_dim))},
      dtype_of(work));
  attention->allocate_workspace();
  return make_cuda_backend(runtime, std::move(attention));
}

Measured train(const Workload& work, cuda::OpenDevice& device) {
  const std::unique_ptr<Backend> made = backend_for(work, *device.runtime);
  cuda::DeviceRuntime& runtime = *device.runtime;
  TimingBackend timing(*made, [&runtime] { runtime.synchronize(runtime.stream(StreamId::kCompute)); });
  Backend& backend = work.times_ops ? static_cast<Backend&>(timing) : *made;
  const Llama::Layout layout{.table = ShardTable::kWhole,
                             .dtype = dtype_of(work),
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
                            .optimizer = {.clip_norm = 1.0}};
  Trainer trainer(model, backend, training);
  initialise(trainer.update_context(), whole_shards(model.parameters()), 1);
  Measured measured;
  std::vector<Batch> batches;
  for (std::int64_t i = 0; i < work.micro_batches; ++i) {
    batches.push_back(random_batch(work.config, work.rows, work.seq_len, static_cast<std::uint64_t>(i)));
    measured.tokens += batches.back().valid_tokens;
  }
  // Of up to three micro-batches: all that a step records has run, been recorded and replayed then.
  const std::vector<Batch> few(batches.begin(),
                               batches.begin() + std::min<std::ptrdiff_t>(3, std::ssize(batches)));
  for (int i = 0; i < kWarmUpSteps; ++i) {
    trainer.step(few, std::ssize(few) * batches.front().valid_tokens, 1e-4);
  }
  timing.reset();
  const StopWatch watch;
  for (std::int64_t step = 0; step < work.steps && (step == 0 || watch.seconds() < work.seconds); ++step) {
    const StepResult result = trainer.step(batches, measured.tokens, 1e-4);
    measured.loss = result.loss;
    measured.times.seconds.push_back(result.seconds);
  }
  for (std::size_t kind = 0; kind < (work.times_ops ? kOpKinds : 0); ++kind) {
    measured.op_seconds.push_back(timing.sum(static_cast<OpKind>(kind)).seconds /
                                  static_cast<double>(measured.times.seconds.size()));
  }
  measured.free_bytes = device.runtime->free_bytes();
  measured.arena_bytes = trainer.executor().arena_bytes();
  return measured;
}

/// Where the device's memory does not suffice, micro-batches are halved and twice as many.
Measured train_what_fits(Workload& work, cuda::OpenDevice& device) {
  while (true) {
    try {
      return train(work, device);
    } catch (const DeviceError& error) {
      if (work.rows % 2 != 0 || !std::string_view(error.what()).starts_with("out of ")) {  // memory
        throw;
      }
    }
    work.rows /= 2;
    work.micro_batches *= 2;
  }
}

void print_shape(const Workload& work, const TokenFlops& flops) {
  const ModelConfig& c = work.config;
  fmt::print("model: {}\n", work.name);
  // In the words of a Hugging Face config.json, for who builds the same model elsewhere. Scaled frequencies
  // of the rotary embedding take no time and are left out.
  fmt::print(
      "config: {{\"vocab_size\": {}, \"hidden_size\": {}, \"intermediate_size\": {}, \"num_hidden_layers\": "
      "{}, "
      "\"num_attention_heads\": {}, \"num_key_value_heads\": {}, \"head_dim\": {}, \"rms_norm_eps\": {}, "
      "\"tie_word_embeddings\": {}}}\n",
      c.vocab_size, c.hidden_size, c.intermediate_size, c.n_layers, c.n_heads, c.n_kv_heads, c.head_dim,
      c.rms_norm_eps, c.tie_embeddings);
  fmt::print("attention: {}\n", work.attention);
  fmt::print("dtype: {}\nrecompute: {}\nseq_len: {}\nrows: {}\nmicro_batches: {}\n", work.dtype,
             work.recompute, work.seq_len, work.rows, work.micro_batches);
  fmt::print("flops_per_token_causal: {:.0f}\nflops_per_token_full: {:.0f}\n",
             flops.products + flops.square / 2.0, flops.products + flops.square);
}

void print_measured(const Measured& measured, const TokenFlops& flops) {
  const Times& times = measured.times;
  const double rate = static_cast<double>(measured.tokens) / times.median();
  fmt::print("tokens_per_step: {}\nsteps: {}\n", measured.tokens, times.seconds.size());
  fmt::print("step_ms: {:.1f}\nstep_ms_least: {:.1f}\nstep_ms_most: {:.1f}\n", 1e3 * times.median(),
             1e3 * times.at(0.0), 1e3 * times.at(1.0));
  fmt::print("tokens_per_second: {:.1f}\n", rate);
  fmt::print("mfu_causal_percent: {:.4g}\nmfu_full_percent: {:.4g}\n",
             100.0 * rate * (flops.products + flops.square / 2.0) / kPeakFlops,
             100.0 * rate * (flops.products + flops.square) / kPeakFlops);
  fmt::print("loss: {:.4f}\n", measured.loss);
  for (std::size_t kind = 0; kind < measured.op_seconds.size(); ++kind) {
    fmt::print("op_{}_ms: {:.4g}\n", kOpKindNames.at(kind), 1e3 * measured.op_seconds[kind]);
  }
}

void run(Workload work) {
  const TokenFlops flops = token_flops(work.config, work.seq_len);
  const BuildInfo build = build_info();
  fmt::print("program: Caravan {} ({}), {}\n", build.version, build.commit, cuda::build_description());
  cuda::OpenDevice device = cuda::open_device(0);
  const std::int64_t free_bytes = device.runtime->facts().free_bytes;
  fmt::print("device: {}\n", device.runtime->facts().name);
  benchmark::Ceilings ceilings(device, work.ceiling_size, 64 * work.ceiling_size * work.ceiling_size);
  const double product_before = ceilings.product();
  const double copy_rate = ceilings.copy();
  const Measured measured = train_what_fits(work, device);
  print_shape(work, flops);
  const double sustained = ceilings.sustained_product(work.sustain);
  const double product = std::max(product_before, ceilings.product());
  print_measured(measured, flops);
  constexpr double kGib = 1073741824.0;
  fmt::print("peak_memory_gib: {:.4g}\nactivations_gib: {:.4g}\n",
             static_cast<double>(free_bytes - measured.free_bytes) / kGib,
             static_cast<double>(measured.arena_bytes) / kGib);
  const double flops_per_second =
      static_cast<double>(measured.tokens) / measured.times.median() * (flops.products + flops.square / 2.0);
  fmt::print("product_tflops: {:.4g}\nof_product_percent: {:.4g}\n", product / 1e12,
             100.0 * flops_per_second / product);
  fmt::print("sustained_product_tflops: {:.4g}\nof_sustained_product_percent: {:.4g}\n", sustained / 1e12,
             100.0 * flops_per_second / sustained);
  fmt::print("copy_tb_per_second: {:.3g}\n", copy_rate / 1e12);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Workload work = workload_of(parse(argc, argv));
    if (const cuda::DeviceCount found = cuda::count_devices(); found.count == 0) {
      fmt::print("skipped: {}\n", found.reason_for_none);
      return 77;
    }
    if (work.attention == "cudnn") {
      if (work.dtype != "bfloat16") {
        fail<ConfigError>("benchmark_gpu_step: --attention cudnn computes in bfloat16, and --dtype is {}",
                          work.dtype);
      }
      if (const cudnn::Search search = cudnn::find(); search.library == nullptr) {
        fmt::print("skipped: {}\n", search.why_none());
        return 77;
      }
    }
    run(work);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}
