// The ops of a CPU step that memory should limit, beside STREAM's triad on the same threads: bytes per second
// with data that fits no cache, and nanoseconds per element with data in the first-level cache, where only
// the arithmetic is left. Answers each line of standard input with one line of JSON, so that memory_ops.py
// can let two builds take turns.
//
// Usage: benchmark_memory_ops THREADS
#include <algorithm>
#include <chrono>
#include <ctime>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "caravan/core/build_info.h"
#include "caravan/core/clock.h"
#include "caravan/core/parallel_for.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/dispatch.h"

using namespace caravan;
using nlohmann::json;

namespace {

/// With one thread the time is the processor's, which other programs on the machine lengthen less.
double now_seconds() {
  if (thread_count() == 1) {
    return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

constexpr std::int64_t kRows = 1024;
constexpr std::int64_t kWidth = 768;
constexpr std::int64_t kInner = 2048;
constexpr std::int64_t kAllBytes = std::int64_t{1} << 27U;  // of a case's tensors: beyond every cache

/// One op at the shapes of benchmark_cpu_step's model. Every call takes the next set of tensors.
struct Case {
  std::string name;
  double elements = 0.0;  // of a call
  double moved = 0.0;     // bytes of an element as STREAM counts: read and written
  double fetched = 0.0;   // and those of lines fetched only to be overwritten
  std::int64_t sets = 1;
  std::function<void(std::int64_t)> call;
};

class Cases {
 public:
  Cases() : backend_(make_cpu_backend()) {
    add_norms();
    add_swiglu();
    add_optimizer();
    add_stream();
  }

  /// {name: GB/s}, each over all sets once.
  json measure() const {
    json rates;
    for (const Case& one : cases_) {
      const double begin = now_seconds();
      for (std::int64_t set = 0; set < one.sets; ++set) {
        one.call(set);
      }
      rates[one.name] =
          1e-9 * one.moved * one.elements * static_cast<double>(one.sets) / (now_seconds() - begin);
    }
    return rates;
  }
  /// {name: bytes of an element, moved and fetched}
  json bytes() const {
    json all;
    for (const Case& one : cases_) {
      all[one.name] = {one.moved, one.fetched};
    }
    return all;
  }

 private:
  /// `count` tensors of `shape` for every set of a case, standard normal.
  std::vector<std::vector<TensorView>> tensors(std::int64_t count, const Shape& shape, std::int64_t& sets) {
    sets = std::max<std::int64_t>(kAllBytes / (count * shape.numel() * 4), 1);
    std::vector<std::vector<TensorView>> all;
    for (std::int64_t set = 0; set < sets; ++set) {
      std::vector<TensorView> views;
      for (std::int64_t i = 0; i < count; ++i) {
        buffers_.push_back(backend_->allocate(shape.numel() * 4));
        views.push_back(buffers_.back().view(0, DType::kFloat32, shape));
        backend_->random_normal({.y = views.back(),
                                 .global_cols = shape[shape.rank() - 1],
                                 .standard_deviation = 1.0,
                                 .stream = buffers_.size()},
                                stream_);
      }
      all.push_back(views);
    }
    return all;
  }
  /// `moved` tensors are read or written, `overwritten` of them written without being read.
  template <class Call>
  std::vector<std::vector<TensorView>> add(const char* name, std::int64_t count, const Shape& shape,
                                           double moved, double overwritten, const Call& call) {
    Case one;
    auto sets = tensors(count, shape, one.sets);
    one.name = name;
    one.elements = static_cast<double>(shape.numel());
    one.moved = 4.0 * moved;
    one.fetched = 4.0 * overwritten;
    one.call = [call, sets](std::int64_t set) { call(sets.at(static_cast<std::size_t>(set))); };
    cases_.push_back(one);
    return sets;
  }

  void add_norms() {
    buffers_.push_back(backend_->allocate(4 * (2 * kWidth + kRows)));
    const Buffer& small = buffers_.back();
    const TensorView weight = small.view(0, DType::kFloat32, {kWidth});
    const TensorView dweight = small.view(4 * kWidth, DType::kFloat32, {kWidth});
    const TensorView rstd = small.view(8 * kWidth, DType::kFloat32, {kRows});
    add("rmsnorm_forward", 4, {kRows, kWidth}, 4.0, 2.0, [=, this](const std::vector<TensorView>& t) {
      backend_->rmsnorm_forward({t[0], t[1], t[2], weight, 1e-5, t[3], rstd}, stream_);
    });
    add("rmsnorm_backward", 3, {kRows, kWidth}, 4.0, 0.0, [=, this](const std::vector<TensorView>& t) {
      backend_->rmsnorm_backward({t[0], t[1], weight, rstd, t[2], dweight}, stream_);
    });
  }
  void add_swiglu() {
    add("swiglu_forward", 3, {kRows, kInner}, 3.0, 1.0, [this](const std::vector<TensorView>& t) {
      backend_->swiglu_forward({t[0], t[1], t[2]}, stream_);
    });
    add("swiglu_backward", 5, {kRows, kInner}, 5.0, 2.0, [this](const std::vector<TensorView>& t) {
      backend_->swiglu_backward({t[0], t[1], t[2], t[3], t[4]}, stream_);
    });
  }
  void add_optimizer() {
    scalars_.lr = 1e-5;
    const auto sets = add("adamw", 4, {kInner, kWidth}, 7.0, 0.0, [this](const std::vector<TensorView>& t) {
      AdamwArgs args{.param = t[0], .grad = t[1], .m = t[2], .v = t[3]};
      args.scalars = &scalars_;
      args.state = &update_;
      backend_->adamw(args, stream_);
    });
    for (const std::vector<TensorView>& t : sets) {
      backend_->zero({t[3]}, stream_);  // second moments are no less than 0
    }
    add("sum_squares", 1, {kInner, kWidth}, 1.0, 0.0, [this](const std::vector<TensorView>& t) {
      backend_->sum_squares({t[0], TensorView(&sum_, DType::kFloat64, {1})}, stream_);
    });
  }
  void add_stream() {
    add("add", 3, {kRows, kInner}, 3.0, 1.0, [this](const std::vector<TensorView>& t) {
      backend_->add({t[0], t[1], t[2]}, stream_);
    });
    add("triad", 3, {kRows, 4 * kInner}, 3.0, 1.0, [](const std::vector<TensorView>& t) {
      float* a = t[2].data<float>();
      const float* b = t[0].data<float>();
      const float* c = t[1].data<float>();
      parallel_for(t[0].numel(), std::int64_t{1} << 20U, [=](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          a[i] = b[i] + 3.0F * c[i];
        }
      });
    });
  }

  std::unique_ptr<Backend> backend_;
  Stream stream_;
  StepScalars scalars_;
  UpdateState update_;
  double sum_ = 0.0;
  std::vector<Buffer> buffers_;
  std::vector<Case> cases_;
};

/// Nanoseconds per element of the inner loops on 1024 elements, the shortest of many.
json measure_in_cache() {
  constexpr std::int64_t kCount = 1024;
  const simd::SimdOps<float>& ops = simd_table(preferred_simd_level()).float32;
  constexpr std::int64_t kApart = kCount + 48;  // whole cache lines, but not the same place in a page
  const Buffer memory = allocate_host(5 * kApart * 4);
  const TensorView all = memory.view(0, DType::kFloat32, {5 * kApart});
  std::fill_n(all.data<float>(), all.numel(), 0.5F);
  const auto at = [&](std::int64_t i) { return all.data<float>() + i * kApart; };
  float rstd = 1.0F;
  const auto shortest = [](const std::function<void()>& call) {
    constexpr int kCalls = 100;
    double best = 1e30;
    for (int sample = 0; sample < 50; ++sample) {
      const StopWatch watch;
      for (int i = 0; i < kCalls; ++i) {
        call();
      }
      best = std::min(best, watch.seconds());
    }
    return 1e9 * best / (kCalls * kCount);
  };
  json times;
  times["rmsnorm_forward"] = shortest([&] {
    ops.rmsnorm_forward({at(0), at(1), at(2), at(3), 1e-5F, at(4), &rstd, 1, kCount});
  });
  times["rmsnorm_backward"] = shortest([&] {
    ops.rmsnorm_backward({at(0), at(1), at(3), &rstd, at(2), at(4), 1, kCount});
  });
  std::fill_n(all.data<float>(), all.numel(), 0.5F);
  times["swiglu_forward"] = shortest([&] { ops.swiglu_forward(at(0), at(1), at(2), kCount); });
  times["swiglu_backward"] = shortest([&] {
    ops.swiglu_backward({at(0), at(1), at(2), at(3), at(4), kCount});
  });
  times["adamw"] = shortest([&] {
    ops.adamw({at(0), at(1), at(2), at(3), kCount, 1.0F, 1e-6F, 0.1F, 0.999F, 0.001F, 1e-5F, 1.0F, 1e-8F});
  });
  times["add"] = shortest([&] { ops.add(at(0), at(1), at(2), kCount); });
  return times;
}

/// Additions that wait for each other take a cycle each.
double gigahertz() {
  constexpr int kAdditions = 1 << 22;
  double best = 1e30;
  for (int sample = 0; sample < 5; ++sample) {
    std::uint64_t x = 0;
    const StopWatch watch;
    for (int i = 0; i < kAdditions / 8; ++i) {
      asm volatile(
          "add $1, %0\n add $1, %0\n add $1, %0\n add $1, %0\n"
          "add $1, %0\n add $1, %0\n add $1, %0\n add $1, %0\n"
          : "+r"(x));
    }
    best = std::min(best, watch.seconds());
  }
  return 1e-9 * kAdditions / best;
}

}  // namespace

// NOLINTNEXTLINE(bugprone-exception-escape): a benchmark ends with the exception's message.
int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::max(1, std::atoi(argv[1])) : 1;
  set_cpu_threads(threads);
  const Cases cases;
  cases.measure();
  const BuildInfo build = build_info();
  std::cout << json({{"backend", std::string(simd_level_name(preferred_simd_level()))},
                     {"threads", threads},
                     {"commit", build.commit},
                     {"bytes", cases.bytes()}})
            << std::endl;
  std::string command;
  while (std::getline(std::cin, command)) {
    std::cout << json({{"rates", cases.measure()},
                       {"in_cache", measure_in_cache()},
                       {"gigahertz", gigahertz()}})
              << std::endl;
  }
  return 0;
}
