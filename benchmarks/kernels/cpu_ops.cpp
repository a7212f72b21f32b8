// Rates of the CPU backend's ops: GFLOP/s for products and attention (beside the rate of a large product on
// the same threads), GB/s for the rest. Usage: benchmark_cpu_ops [threads] [float32|float64] The best of
// several repetitions is printed: a busy machine slows the others.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "caravan/core/parallel_for.h"
#include "kernels/cpu/cpu_backend.h"

using namespace caravan;

namespace {

/// With one thread the time is the processor's, which other programs on the machine do not lengthen; with
/// several it is the wall clock's.
double now_seconds(int threads) {
  if (threads == 1) {
    return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Shortest time of one call, after one to warm up; half a second in all.
double best_seconds(const std::function<void()>& call) {
  const int threads = thread_count();
  call();
  double best = 1e30;
  const double begin = now_seconds(threads);
  int repetitions = 0;
  while (repetitions < 3 || (now_seconds(threads) - begin < 0.5 && repetitions < 1000)) {
    const double start = now_seconds(threads);
    call();
    best = std::min(best, now_seconds(threads) - start);
    ++repetitions;
  }
  return std::max(best, 1e-9);
}

class Bench {
 public:
  Bench(Backend& backend, DType dtype) : backend_(backend), dtype_(dtype) {}

  void products();
  void attention(std::int64_t seq_len, std::int64_t head_dim, std::int64_t heads, std::int64_t kv_heads);
  void row_ops();
  void loss();
  void update();

 private:
  TensorView tensor(const Shape& shape) {
    const auto bytes = shape.numel() * static_cast<std::int64_t>(dtype_bytes(dtype_));
    buffers_.push_back(backend_.allocate(bytes));
    const TensorView view = buffers_.back().view(0, dtype_, shape);
    RandomNormalArgs args{.y = view, .global_cols = shape[shape.rank() - 1]};
    args.stream = ++drawn_;
    backend_.random_normal(args, stream_);
    return view;
  }
  void print_flops(const std::string& what, double flops, double seconds) const {
    const double rate = flops / seconds * 1e-9;
    const std::string share =
        peak_ > 0.0 ? fmt::format("{:4.0f} % of the product", 100.0 * rate / peak_) : "";
    fmt::print("{:48} {:8.1f} GFLOP/s {}\n", what, rate, share);
  }
  void bytes(const std::string& what, std::int64_t count, const std::function<void()>& call) const {
    fmt::print("{:48} {:8.1f} GB/s\n", what, static_cast<double>(count) / best_seconds(call) * 1e-9);
  }

  Backend& backend_;
  DType dtype_;
  Stream stream_;
  std::vector<Buffer> buffers_;
  std::uint64_t drawn_ = 0;
  double peak_ = 0.0;
};

void Bench::products() {
  for (const std::int64_t n : {1024, 256}) {
    const TensorView a = tensor({n, n});
    const TensorView b = tensor({n, n});
    const TensorView c = tensor({n, n});
    const double flops = 2.0 * std::pow(static_cast<double>(n), 3.0);
    const double seconds = best_seconds([&] { backend_.matmul_nt({a, DenseWeight{b}, c}, stream_); });
    print_flops(fmt::format("matmul_nt {0}x{0}x{0}", n), flops, seconds);
    peak_ = peak_ > 0.0 ? peak_ : flops / seconds * 1e-9;
    print_flops(fmt::format("matmul_nn {0}x{0}x{0}", n), flops, best_seconds([&] {
                  backend_.matmul_nn({a, DenseWeight{b}, c}, stream_);
                }));
    print_flops(fmt::format("matmul_tn {0}x{0}x{0}", n), flops, best_seconds([&] {
                  backend_.matmul_tn({a, b, c}, stream_);
                }));
  }
  const TensorView x = tensor({1, 2048});
  const TensorView weight = tensor({8192, 2048});
  const TensorView y = tensor({1, 8192});
  bytes("matmul_nt one row, 8192x2048", weight.bytes(), [&] {
    backend_.matmul_nt({x, DenseWeight{weight}, y}, stream_);
  });
}

void Bench::attention(std::int64_t seq_len, std::int64_t head_dim, std::int64_t heads,
                      std::int64_t kv_heads) {
  std::vector<std::int32_t> index(static_cast<std::size_t>(seq_len));
  for (std::size_t i = 0; i < index.size(); ++i) {
    index[i] = static_cast<std::int32_t>(i);
  }
  std::vector<std::int32_t> start(index.size(), 0);
  const AttentionShape shape = {
      1, seq_len, seq_len, heads, kv_heads, head_dim, 1.0 / std::sqrt(static_cast<double>(head_dim))};
  const TensorView at(index.data(), DType::kInt32, {seq_len});
  const AttentionMask mask = {at, at, TensorView(start.data(), DType::kInt32, {seq_len})};
  const TensorView q = tensor({seq_len, heads * head_dim});
  const TensorView k = tensor({seq_len, kv_heads * head_dim});
  const TensorView v = tensor({seq_len, kv_heads * head_dim});
  const TensorView o = tensor({seq_len, heads * head_dim});
  const TensorView lse = tensor({heads, seq_len});
  const TensorView d_o = tensor({seq_len, heads * head_dim});
  const TensorView dq = tensor({seq_len, heads * head_dim});
  const TensorView dk = tensor({seq_len, kv_heads * head_dim});
  const TensorView dv = tensor({seq_len, kv_heads * head_dim});
  // Visible pairs only: what a block computes beyond them is not work done.
  const double pairs = static_cast<double>(heads * seq_len * (seq_len + 1)) / 2.0;
  const double pair_flops = 2.0 * static_cast<double>(head_dim);
  const std::string what = fmt::format("S={} E={} H={} G={}", seq_len, head_dim, heads, kv_heads);
  print_flops("attention forward " + what, 2.0 * pairs * pair_flops, best_seconds([&] {
                backend_.attention_forward({shape, mask, q, k, v, o, lse}, stream_);
              }));
  print_flops("attention backward " + what, 5.0 * pairs * pair_flops, best_seconds([&] {
                backend_.attention_backward({shape, mask, q, k, v, o, lse, d_o, dq, dk, dv}, stream_);
              }));
}

void Bench::row_ops() {
  const std::int64_t rows = 512;
  const std::int64_t width = 2048;
  const TensorView x = tensor({rows, width});
  const TensorView y = tensor({rows, width});
  const TensorView dx = tensor({rows, width});
  const TensorView gate_gradient = tensor({rows, width});
  const TensorView weight = tensor({width});
  const TensorView dweight = tensor({width});
  const TensorView rstd = tensor({rows});
  const std::int64_t one = x.bytes();
  bytes("rmsnorm forward 512x2048", 2 * one, [&] {
    backend_.rmsnorm_forward({x, {}, {}, weight, 1e-5, y, rstd}, stream_);
  });
  bytes("rmsnorm backward 512x2048", 4 * one, [&] {
    backend_.rmsnorm_backward({y, x, weight, rstd, dx, dweight}, stream_);
  });
  bytes("swiglu forward 512x2048", 3 * one, [&] { backend_.swiglu_forward({x, y, dx}, stream_); });
  bytes("swiglu backward 512x2048", 5 * one, [&] {
    backend_.swiglu_backward({dx, x, y, gate_gradient, dx}, stream_);
  });
  bytes("add 512x2048", 3 * one, [&] { backend_.add({x, y, dx}, stream_); });
  std::vector<std::int32_t> positions(rows);
  for (std::size_t t = 0; t < positions.size(); ++t) {
    positions[t] = static_cast<std::int32_t>(t);
  }
  const TensorView table = tensor({rows, 32});
  const TensorView index(positions.data(), DType::kInt32, {rows});
  bytes("rope 512 tokens, 32 heads of 64", 2 * one, [&] {
    backend_.rope({x, index, table, table, 64, RopeDirection::kForward}, stream_);
    backend_.rope({x, index, table, table, 64, RopeDirection::kBackward}, stream_);
  });
  StepScalars mask;
  bytes("dropout 512x2048", 2 * one, [&] { backend_.dropout({x, y, index, index, 0, 0.1, &mask}, stream_); });
}

void Bench::loss() {
  std::vector<std::int32_t> ids(64);
  std::iota(ids.begin(), ids.end(), 0);
  const TensorView logits = tensor({64, 128256});
  const TensorView statistic = tensor({64});
  const TensorView targets(ids.data(), DType::kInt32, {64});
  bytes("cross entropy stats 64x128256", logits.bytes(), [&] {
    backend_.cross_entropy_stats({logits, targets, 0, statistic, statistic, statistic}, stream_);
  });
  std::vector<float> weights(64, 1.0F);
  const TensorView target_weights(weights.data(), DType::kFloat32, {64});
  StepScalars mean;
  mean.inv_valid_tokens = 1.0 / 64.0;
  bytes("cross entropy and gradient 64x128256", 2 * logits.bytes(), [&] {
    backend_.cross_entropy({logits, targets, target_weights, statistic, LogitsAfter::kGradient, &mean},
                           stream_);
  });
  bytes("cross entropy and gradient in steps 64x128256", 3 * logits.bytes(), [&] {
    backend_.cross_entropy_stats({logits, targets, 0, statistic, statistic, statistic}, stream_);
    backend_.cross_entropy_backward({logits, targets, target_weights, statistic, 0, &mean}, stream_);
  });
}

void Bench::update() {
  const TensorView param = tensor({1 << 22});
  const TensorView grad = tensor({1 << 22});
  const TensorView m = tensor({1 << 22});
  const TensorView v = tensor({1 << 22});
  backend_.zero({v}, stream_);
  StepScalars scalars;
  scalars.lr = 1e-5;
  AdamwArgs adamw{.param = param, .grad = grad, .m = m, .v = v};
  adamw.scalars = &scalars;
  const UpdateState state{.updates = 1};
  adamw.state = &state;
  bytes("adamw 4 M", 7 * param.bytes(), [&] { backend_.adamw(adamw, stream_); });
  double sum = 0.0;
  bytes("sum of squares 4 M", param.bytes(), [&] {
    backend_.sum_squares({param, TensorView(&sum, DType::kFloat64, {1})}, stream_);
  });
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::max(1, std::atoi(argv[1])) : 1;
  const DType dtype = argc > 2 && std::strcmp(argv[2], "float64") == 0 ? DType::kFloat64 : DType::kFloat32;
  set_cpu_threads(threads);
  const auto backend = make_cpu_backend();
  fmt::print("{}, {} threads, {}\n", backend->name(), threads, dtype_name(dtype));
  Bench bench(*backend, dtype);
  bench.products();
  bench.attention(256, 64, 8, 8);
  bench.attention(512, 64, 8, 2);
  bench.attention(1024, 64, 8, 2);
  bench.attention(512, 128, 4, 1);
  bench.row_ops();
  bench.loss();
  bench.update();
  return 0;
}
