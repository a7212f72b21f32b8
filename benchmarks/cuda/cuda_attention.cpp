// Attention on one GPU, causal rows in bfloat16: cuDNN's, Caravan's portable kernels and those for Hopper, on
// the same tensors in the same run. One line per core, pass and shape ("portable forward 128x4096": heads of
// 128, rows of 4096 tokens): time, TFLOP/s, the share of cuDNN's rate, and how far the results are from the
// portable kernels': of o, and of dq, dk and dv together (relative differences of norms). Ends with 1 where
// that is too far, with 77 where there is no GPU.
//   benchmark_cuda_attention [TOKENS]     rows of 1024, 2048, 4096 and 8192 in TOKENS (16384) tokens
#include <fmt/core.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>

#include "benchmarks/cuda/device_tensors.h"
#include "kernels/cuda/hopper/launchers.h"
#include "kernels/cuda/open_device.h"

namespace {

using namespace caravan;
using namespace caravan::benchmark;

// Two kernels that round weights, ds and results to bfloat16, 2^-9 relative each, in different places.
constexpr double kMostDifference = 2e-2;

/// What computes attention.
struct Core {
  std::string name;
  std::function<void(const AttentionForwardArgs&)> forward;
  std::function<void(const AttentionBackwardArgs&, const cuda::Workspace&)> backward;
};

/// Of the launchers as they stand with CARAVAN_HOPPER_ATTENTION=0.
Core portable_core() {
  return {"portable", [](const AttentionForwardArgs& a) { cuda::attention_forward(a, nullptr); },
          [](const AttentionBackwardArgs& a, const cuda::Workspace& workspace) {
            cuda::attention_backward(a, workspace, nullptr);
          }};
}

Core hopper_core() {
  return {"Hopper", [](const AttentionForwardArgs& a) { cuda::hopper::attention_forward(a, nullptr); },
          [](const AttentionBackwardArgs& a, const cuda::Workspace& workspace) {
            cuda::hopper::attention_backward(a, workspace, nullptr);
          }};
}

Core cudnn_core(const std::shared_ptr<cudnn::PlannedAttention>& attention) {
  attention->allocate_workspace();
  const auto require = [](bool is_taken) {
    if (!is_taken) {
      fail<DeviceError>("cuDNN does not take a pass that it has planned");
    }
  };
  return {"cuDNN", [=](const AttentionForwardArgs& a) { require(attention->forward(a, nullptr)); },
          [=](const AttentionBackwardArgs& a, const cuda::Workspace&) {
            require(attention->backward(a, nullptr));
          }};
}

/// The same values for every problem of one shape.
struct Problem {
  DeviceTensors tensors;
  AttentionForwardArgs forward;
  AttentionBackwardArgs backward;
  cuda::Workspace scratch;

  explicit Problem(const AttentionShape& shape) {
    const std::int64_t tokens = shape.batch * shape.query_len;
    const Shape q{tokens, shape.n_heads * shape.head_dim};
    const Shape kv{tokens, shape.n_kv_heads * shape.head_dim};
    const auto values = [&](const Shape& size) { return tensors.random(DType::kBFloat16, size); };
    forward = {.shape = shape,
               .mask = {.query_index = tensors.places(tokens, shape.query_len),
                        .key_index = tensors.places(tokens, shape.query_len),
                        .document_start = tensors.places(tokens, 1),
                        .kind = MaskKind::kCausal},
               .q = values(q),
               .k = values(kv),
               .v = values(kv),
               .o = values(q),
               .lse = tensors.random(DType::kFloat32, {shape.n_heads, tokens})};
    backward = {.shape = shape,
                .mask = forward.mask,
                .q = forward.q,
                .k = forward.k,
                .v = forward.v,
                .o = forward.o,
                .lse = forward.lse,
                .d_o = values(q),
                .dq = values(q),
                .dk = values(kv),
                .dv = values(kv)};
    scratch = tensors.workspace(cuda::attention_backward_workspace_bytes(shape));
  }

  /// One forward and one backward pass; o, dq, dk and dv on the host.
  std::array<std::vector<BFloat16>, 4> results(const Core& core) {
    core.forward(forward);
    core.backward(backward, scratch);
    check("cudaDeviceSynchronize", cudaDeviceSynchronize());
    return {fetched(forward.o), fetched(backward.dq), fetched(backward.dk), fetched(backward.dv)};
  }

 private:
  static std::vector<BFloat16> fetched(const TensorView& view) {
    std::vector<BFloat16> values(static_cast<std::size_t>(view.numel()));
    check("cudaMemcpy", cudaMemcpy(values.data(), view.raw(), values.size() * 2, cudaMemcpyDeviceToHost));
    return values;
  }
};

/// ‖a − b‖ / ‖b‖; NaN where a or b has one.
double difference(const std::vector<BFloat16>& a, const std::vector<BFloat16>& b) {
  double square = 0.0;
  double norm = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto x = static_cast<double>(to_float(a[i]));
    const auto y = static_cast<double>(to_float(b[i]));
    square += (x - y) * (x - y);
    norm += y * y;
  }
  return std::sqrt(square / norm);
}

class Table {
 public:
  bool has_failed() const { return has_failed_; }

  void measure(const Core& core, const AttentionShape& shape) {
    Problem problem(shape);
    const auto expected = problem.results(portable_core());
    const auto actual = problem.results(core);
    std::array<double, 4> differences{};
    for (std::size_t i = 0; i < differences.size(); ++i) {
      differences[i] = difference(actual[i], expected[i]);
    }
    // Two products forward, five backward, 2·E operations for each pair that is seen, half of the square.
    const double product =
        static_cast<double>(shape.batch * shape.n_heads * shape.query_len * shape.query_len) *
        static_cast<double>(shape.head_dim);
    line(core, shape, "forward", 2.0 * product, time_launches([&](int) { core.forward(problem.forward); }),
         differences[0]);
    line(core, shape, "backward", 5.0 * product,
         time_launches([&](int) { core.backward(problem.backward, problem.scratch); }),
         differences[1] + differences[2] + differences[3]);
  }

 private:
  void line(const Core& core, const AttentionShape& shape, const std::string& pass, double flops,
            const Timing& timing, double off) {
    const double rate = flops / timing.median * 1e-12;
    const std::string what = fmt::format("{} {}x{}", pass, shape.head_dim, shape.query_len);
    if (core.name == "cuDNN") {
      cudnn_[what] = rate;
    }
    const auto found = cudnn_.find(what);
    const bool is_off = !(off <= kMostDifference);
    has_failed_ = has_failed_ || is_off;
    // gpu_report.awk finds a row by what stands before the first two spaces.
    fmt::print("{:26} {:9.1f} us ± {:4.1f} % {:7.1f} TFLOP/s  {} of cuDNN's  off by {:.1e}{}\n",
               core.name + " " + what, timing.median * 1e6, 100.0 * timing.spread / timing.median, rate,
               found == cudnn_.end() ? "   -" : fmt::format("{:.2f}", rate / found->second), off,
               is_off ? "  TOO FAR" : "");
    std::fflush(stdout);  // should a later core hang, what was measured is told
  }

  std::map<std::string, double> cudnn_;  // TFLOP/s
  bool has_failed_ = false;
};

std::vector<AttentionShape> shapes(std::int64_t tokens) {
  std::vector<AttentionShape> all;
  for (const std::int64_t head_dim : {64, 128}) {  // Llama 3.2 1B's heads, and 3.1 8B's
    for (const std::int64_t length : {1024, 2048, 4096, 8192}) {
      if (tokens % length == 0) {
        all.push_back({.batch = tokens / length,
                       .query_len = length,
                       .key_len = length,
                       .n_heads = 32,
                       .n_kv_heads = 8,
                       .head_dim = head_dim,
                       .scale = 1.0 / std::sqrt(static_cast<double>(head_dim))});
      }
    }
  }
  return all;
}

/// False when some core computes something else than the others.
bool run(std::int64_t tokens) {
  cuda::OpenDevice device = cuda::open_device(0);
  const cuda::DeviceFacts& facts = device.runtime->facts();
  fmt::print("{}, sm_{}, {} tokens, 32/8 heads, bfloat16, causal\n", facts.name, facts.compute_capability,
             tokens);
  Table table;
  const cudnn::Search search = cudnn::find();
  if (search.library == nullptr) {
    fmt::print("cuDNN: not measured: {}\n", search.why_none());
  } else {
    fmt::print("cuDNN {} ({})\n", search.library->version(), search.library->path());
    for (const AttentionShape& shape : shapes(tokens)) {
      try {
        table.measure(cudnn_core(std::make_shared<cudnn::PlannedAttention>(*device.runtime, search.library,
                                                                           shape, DType::kBFloat16)),
                      shape);
      } catch (const DeviceError& error) {
        fmt::print("cuDNN {}x{}: {}\n", shape.head_dim, shape.query_len, error.what());
      }
    }
  }
  for (const AttentionShape& shape : shapes(tokens)) {
    table.measure(portable_core(), shape);
  }
  // Last: a fault of theirs may hang.
  constexpr int kHopper = 90;
  if (facts.compute_capability == kHopper) {
    for (const AttentionShape& shape : shapes(tokens)) {
      table.measure(hopper_core(), shape);
    }
  } else {
    fmt::print("Hopper: not measured: the GPU has compute capability {}.{}, not 9.0\n",
               facts.compute_capability / 10, facts.compute_capability % 10);
  }
  return !table.has_failed();
}

}  // namespace

int main(int argc, char** argv) {
  try {
    setenv("CARAVAN_HOPPER_ATTENTION", "0", 1);
    const std::int64_t tokens = argc > 1 ? std::atoll(argv[1]) : 16384;
    if (tokens < 1 || tokens % 1024 != 0) {
      fail<ConfigError>("{} tokens cannot be divided into rows of 1024", tokens);
    }
    if (const cuda::DeviceCount found = cuda::count_devices(); found.count == 0) {
      fmt::print("skipped: {}\n", found.reason_for_none);
      return 77;
    }
    if (!run(tokens)) {
      fmt::print(stderr, "benchmark_cuda_attention: results of two cores are more than {} apart\n",
                 kMostDifference);
      return 1;
    }
  } catch (const std::exception& error) {
    fmt::print(stderr, "benchmark_cuda_attention: {}\n", error.what());
    return 1;
  }
  return 0;
}
