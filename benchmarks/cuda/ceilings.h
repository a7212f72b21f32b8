// What a GPU reaches at best, measured in the run whose figures are held against it.
#pragma once

#include <algorithm>
#include <array>

#include "caravan/core/clock.h"
#include "kernels/cuda/open_device.h"

namespace caravan::benchmark {

class Ceilings {
 public:
  /// `size`: rows and columns of the product's matrices; `copy_bytes`: of one copy. Smaller ones are for
  /// trying the program out.
  explicit Ceilings(cuda::OpenDevice& device, std::int64_t size = 8192,
                    std::int64_t copy_bytes = std::int64_t{4} << 30U)
      : device_(device), size_(size), copy_bytes_(copy_bytes) {}

  /// FLOP/s of a bfloat16 product of random square matrices: zeros take less power and run faster. A burst,
  /// at the clock of a GPU that has rested.
  double product() {
    return products([&](const auto& calls) { return timed(calls); });
  }
  /// The same at the clock that the GPU's power limit leaves after half of `seconds` of nothing else.
  double sustained_product(double seconds) {
    return products([&](const auto& calls) {
      const StopWatch watch;
      double latest = once(calls);
      while (watch.seconds() < seconds / 2) {
        latest = once(calls);
      }
      double sum = 0.0;
      int times = 0;
      while (watch.seconds() < seconds) {
        sum += once(calls);
        ++times;
      }
      return times > 0 ? sum / times : latest;
    });
  }
  /// Bytes read and written per second by copies within the device.
  double copy() {
    constexpr int kCalls = 8;
    cuda::DeviceRuntime& runtime = *device_.runtime;
    const Buffer from = device_.backend->allocate(copy_bytes_);
    const Buffer to = device_.backend->allocate(copy_bytes_);
    const auto calls = [&] {
      for (int i = 0; i < kCalls; ++i) {
        runtime.copy(to.data(), from.data(), copy_bytes_, runtime.stream(StreamId::kCompute));
      }
    };
    return 2.0 * static_cast<double>(copy_bytes_) * kCalls / timed(calls);
  }

 private:
  /// FLOP/s by the seconds that `measure` finds for some products.
  template <class Measure>
  double products(const Measure& measure) {
    constexpr int kCalls = 20;
    Backend& backend = *device_.backend;
    std::array<Buffer, 3> memory;
    std::array<TensorView, 3> views;
    for (std::size_t i = 0; i < 3; ++i) {
      memory.at(i) = backend.allocate(2 * size_ * size_);
      views.at(i) = memory.at(i).view(0, DType::kBFloat16, {size_, size_});
      backend.random_normal({.y = views.at(i), .global_cols = size_, .standard_deviation = 1.0, .stream = i},
                            stream_);
    }
    const auto n = static_cast<double>(size_);
    return 2.0 * n * n * n * kCalls / measure([&] {
             for (int i = 0; i < kCalls; ++i) {
               backend.matmul_nt({views[0], DenseWeight{views[1]}, views[2]}, stream_);
             }
           });
  }
  template <class Body>
  double once(const Body& body) {
    const StopWatch watch;
    body();
    device_.runtime->synchronize(device_.runtime->stream(StreamId::kCompute));
    return watch.seconds();
  }
  /// Seconds, the best of three after one to warm up.
  template <class Body>
  double timed(const Body& body) {
    once(body);
    return std::min({once(body), once(body), once(body)});
  }

  cuda::OpenDevice& device_;
  std::int64_t size_;
  std::int64_t copy_bytes_;
  Stream stream_;
};

}  // namespace caravan::benchmark
