// One training step of a model of 94 M parameters, and greedy decoding with it, measured from outside: reads
// commands from standard input and answers each with one line of JSON, so that a driver
// (benchmarks/end_to_end/compare_step.py) can let it take turns with another program on the same cores.
//
// Usage: benchmark_cpu_step THREADS. Commands: step, products, products-blas (OpenBLAS divides them over its
// own threads), stream, generate, generate-whole.
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "caravan/comm/self_communicator.h"
#include "caravan/core/build_info.h"
#include "caravan/core/counter_rng.h"
#include "caravan/core/parallel_for.h"
#include "caravan/train/generator.h"
#include "caravan/train/trainer.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/support/malloc_count.h"
#include "timing_backend.h"

using namespace caravan;
using nlohmann::json;

extern "C" char* openblas_get_corename(void);
extern "C" void openblas_set_num_threads(int count);

namespace {

constexpr std::int64_t kBatch = 4;
constexpr std::int64_t kSeqLen = 256;
constexpr std::int64_t kPrompt = 32;
constexpr std::int64_t kNewTokens = 64;

ModelConfig model_config() {
  ModelConfig config;
  config.vocab_size = 8192;
  config.hidden_size = 768;
  config.intermediate_size = 2048;
  config.n_layers = 12;
  config.n_heads = 12;
  config.n_kv_heads = 4;
  config.head_dim = 64;
  return config;
}

/// 6 · N_matmul + 6 · L · D · S operations per token, N_matmul = all matrices but the embedding: of attention
/// a causal S × S half is counted.
double step_flops(const ModelConfig& c) {
  const std::int64_t layer = c.hidden_size * (2 * c.n_heads + 2 * c.n_kv_heads) * c.head_dim +
                             3 * c.hidden_size * c.intermediate_size;
  const std::int64_t matrices = c.n_layers * layer + c.vocab_size * c.hidden_size;
  const std::int64_t attention = c.n_layers * c.hidden_size * kSeqLen;
  return 6.0 * static_cast<double>(matrices + attention) * static_cast<double>(kBatch * kSeqLen);
}

Batch random_batch(const ModelConfig& config) {
  Batch batch;
  batch.batch = kBatch;
  batch.seq_len = kSeqLen;
  batch.valid_tokens = kBatch * kSeqLen;
  const CounterRng rng(1, 1);
  for (std::int64_t t = 0; t < batch.n_tokens(); ++t) {
    const auto draw = [&](std::int64_t which) {
      return static_cast<std::int32_t>(rng.uniform(static_cast<std::uint64_t>(2 * t + which)) *
                                       static_cast<double>(config.vocab_size));
    };
    batch.ids.push_back(draw(0));
    batch.targets.push_back(draw(1));
    batch.target_weights.push_back(1.0F);
    batch.index.push_back(static_cast<std::int32_t>(t % kSeqLen));
    batch.document_start.push_back(0);
  }
  return batch;
}

double peak_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024.0;
}

/// Rates of the step's own product shapes, each between two others, so that no operand is left in cache from
/// its own last call. The best of them is "the machine's sgemm".
class ProductRates {
 public:
  ProductRates(Backend& backend, const std::map<ProductShape, TimingBackend::Sum>& products)
      : backend_(backend) {
    std::int64_t most = 0;
    for (const auto& [shape, sum] : products) {
      shapes_.push_back(shape);
      most = std::max({most, shape.m * shape.n, shape.m * shape.k, shape.n * shape.k});
    }
    for (Buffer& operand : operands_) {
      operand = backend.allocate(most * 4);
      backend.random_normal(
          {.y = operand.view(0, DType::kFloat32, {most}), .global_cols = most, .standard_deviation = 1.0},
          stream_);
    }
  }

  json measure() {
    // Not timed: threads that have just been made, as after products-blas, may share a core for 0.1 s.
    for (const ProductShape& s : shapes_) {
      call(s);
    }
    json rates = json::object();
    double best = 0.0;
    for (const ProductShape& s : shapes_) {
      const StopWatch watch;
      call(s);
      const double rate = 2e-9 * static_cast<double>(s.m * s.n) * static_cast<double>(s.k) / watch.seconds();
      rates[std::string(s.form) + (s.accumulate == Accumulate::kAdd ? "+ " : " ") + std::to_string(s.m) +
            "x" + std::to_string(s.n) + "x" + std::to_string(s.k)] = rate;
      best = std::max(best, rate);
    }
    return {{"best", best}, {"gflops", rates}};
  }

 private:
  void call(const ProductShape& s) {
    const auto operand = [&](std::size_t which, std::int64_t rows, std::int64_t cols) {
      return operands_.at(which).view(0, DType::kFloat32, {rows, cols});
    };
    const TensorView c = operand(2, s.m, s.n);
    if (std::strcmp(s.form, "nt") == 0) {
      backend_.matmul_nt({operand(0, s.m, s.k), DenseWeight{operand(1, s.n, s.k)}, c, s.accumulate}, stream_);
    } else if (std::strcmp(s.form, "nn") == 0) {
      backend_.matmul_nn({operand(0, s.m, s.k), DenseWeight{operand(1, s.k, s.n)}, c, s.accumulate}, stream_);
    } else {
      backend_.matmul_tn({operand(0, s.k, s.m), operand(1, s.k, s.n), c, s.accumulate}, stream_);
    }
  }

  Backend& backend_;
  Stream stream_;
  std::vector<ProductShape> shapes_;
  std::array<Buffer, 3> operands_;
};

/// McCalpin's copy and triad on arrays that fit no cache, bytes as he counts them (no write-allocate), and a
/// pass that only reads (sum_squares), as decoding does.
class StreamRates {
 public:
  explicit StreamRates(Backend& backend) : backend_(backend) {
    for (std::size_t i = 0; i < 3; ++i) {
      arrays_.at(i) = allocate_host(kCount * 4);
      data_.at(i) = static_cast<float*>(arrays_.at(i).data());
    }
    // Written before they are read: what nobody has written is one page of zeros, which stays in the cache.
    each_part([&](std::int64_t begin, std::int64_t end) {
      for (float* data : data_) {
        std::fill(data + begin, data + end, 1.0F);
      }
    });
    triad();
  }
  json measure() {
    const StopWatch copy_watch;
    each_part([&](std::int64_t begin, std::int64_t end) {
      std::memcpy(data_[2] + begin, data_[0] + begin, static_cast<std::size_t>(end - begin) * 4);
    });
    const double copy_seconds = copy_watch.seconds();
    const StopWatch triad_watch;
    triad();
    const double triad_seconds = triad_watch.seconds();
    double sum = 0.0;
    Stream stream;
    const StopWatch read_watch;
    backend_.sum_squares(
        {arrays_[0].view(0, DType::kFloat32, {kCount}), TensorView(&sum, DType::kFloat64, {1})}, stream);
    const double count = static_cast<double>(kCount);
    return {{"copy", 8e-9 * count / copy_seconds},
            {"triad", 12e-9 * count / triad_seconds},
            {"read", 4e-9 * count / read_watch.seconds()}};
  }

 private:
  static constexpr std::int64_t kCount = std::int64_t{1} << 26;
  template <class Body>
  static void each_part(const Body& body) {
    parallel_for(kCount, std::int64_t{1} << 20, body);
  }
  void triad() {
    each_part([&](std::int64_t begin, std::int64_t end) {
      float* a = data_[2];
      const float* b = data_[0];
      const float* c = data_[1];
      for (std::int64_t i = begin; i < end; ++i) {
        a[i] = b[i] + 3.0F * c[i];
      }
    });
  }
  Backend& backend_;
  std::array<Buffer, 3> arrays_;
  std::array<float*, 3> data_{};
};

class Training {
 public:
  explicit Training(Backend& inner)
      : config_(model_config()),
        backend_(inner),
        model_(config_, {.dtype = DType::kFloat32, .positions = kSeqLen}, backend_,
               {boundary_, attention_, vocab_}),
        trainer_(model_, backend_,
                 {.limits = {.batch = kBatch, .seq_len = kSeqLen}, .optimizer = {.clip_norm = 1.0}}),
        batch_(random_batch(config_)) {
    initialise(trainer_.executor().context(), whole_shards(model_.parameters()), 1);
  }

  const TimingBackend& backend() const { return backend_; }

  json step() {
    backend_.reset();
    const std::int64_t before = allocations;
    const StopWatch watch;
    const StepResult result = trainer_.step(batch_, 1e-4);
    const double seconds = watch.seconds();
    const std::int64_t taken = allocations - before;
    json ops;
    for (std::size_t i = 0; i < kOpKinds; ++i) {
      const TimingBackend::Sum& sum = backend_.sum(static_cast<OpKind>(i));
      ops[kOpKindNames.at(i)] = {{"seconds", sum.seconds}, {"amount", sum.amount}};
    }
    json products;
    for (const auto& [s, sum] : backend_.products()) {
      products[std::string(s.form) + (s.accumulate == Accumulate::kAdd ? "+ " : " ") + std::to_string(s.m) +
               "x" + std::to_string(s.n) + "x" + std::to_string(s.k)] = {sum.seconds, sum.amount * 1e-9};
    }
    return {{"seconds", seconds},
            {"loss", result.loss},
            {"allocations", taken},
            {"flops", step_flops(config_)},
            {"tokens", result.tokens},
            {"peak_bytes", peak_bytes()},
            {"ops", ops},
            {"products", products}};
  }

 private:
  ModelConfig config_;
  TimingBackend backend_;
  LocalBoundary boundary_;
  LocalAttention attention_;
  LocalVocab vocab_;
  Llama model_;
  Trainer trainer_;
  Batch batch_;
};

json generate(Backend& backend, KvCache cache) {
  const ModelConfig config = model_config();
  std::int64_t weight_bytes = 0;
  SelfCommunicator alone;
  Generator generator(config, DType::kFloat32, backend, kPrompt + kNewTokens, cache,
                      [&](const Context& ctx, ParameterSet& parameters) {
                        initialise(ctx, whole_shards(parameters), 1);
                        weight_bytes = parameters.value_bytes() - config.vocab_size * config.hidden_size * 4;
                      },
                      {alone});
  std::vector<std::int32_t> prompt;
  for (std::int32_t i = 0; i < kPrompt; ++i) {
    prompt.push_back(i + 10);
  }
  double first = 0.0;
  std::int64_t made = 0;
  const StopWatch watch;
  generator.generate(prompt, kNewTokens, {}, {}, [&](std::int32_t) {
    first = made++ == 0 ? watch.seconds() : first;
    return true;
  });
  const double seconds = watch.seconds();
  // The first token pays for the prompt; the rest is decoding.
  return {{"prompt_seconds", first},
          {"seconds", seconds},
          {"tokens", made},
          {"tokens_per_second", static_cast<double>(made - 1) / (seconds - first)},
          {"weight_bytes", weight_bytes}};
}

}  // namespace

// NOLINTNEXTLINE(bugprone-exception-escape): a benchmark ends with the exception's message.
int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::max(1, std::atoi(argv[1])) : 1;
  set_cpu_threads(threads);
  const std::unique_ptr<Backend> backend = make_cpu_backend();
  std::unique_ptr<Training> training;
  std::unique_ptr<ProductRates> products;
  std::unique_ptr<StreamRates> stream;
  const BuildInfo build = build_info();
  std::cout << json({{"backend",
                      std::string(backend->name()) + ", OpenBLAS kernels " + openblas_get_corename()},
                     {"threads", threads},
                     {"commit", build.commit},
                     {"compiler", build.compiler},
                     {"build_type", build.build_type}})
            << std::endl;
  std::string command;
  while (std::getline(std::cin, command)) {
    json answer;
    if (command == "step" || command == "products" || command == "products-blas") {
      if (!training) {
        training = std::make_unique<Training>(*backend);
        training->step();
      }
      if (command != "step" && !products) {
        products = std::make_unique<ProductRates>(*backend, training->backend().products());
      }
      if (command == "products-blas") {
        set_thread_count(1);
        openblas_set_num_threads(threads);
      }
      answer = command == "step" ? training->step() : products->measure();
      set_cpu_threads(threads);
    } else if (command == "stream") {
      stream = stream ? std::move(stream) : std::make_unique<StreamRates>(*backend);
      answer = stream->measure();
    } else if (command == "generate" || command == "generate-whole") {
      answer = generate(*backend, command == "generate" ? KvCache::kOn : KvCache::kOff);
    } else {
      answer = {{"error", "unknown command " + command}};
    }
    std::cout << answer << std::endl;
  }
  return 0;
}
