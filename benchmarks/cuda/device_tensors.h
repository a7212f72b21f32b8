// Tensors of a case in device memory, and the time of its launches.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <vector>

#include "benchmarks/cuda/kernel_case.h"
#include "caravan/core/counter_rng.h"
#include "caravan/core/error.h"

namespace caravan::benchmark {

inline void check(const char* call, cudaError_t status) {
  if (status != cudaSuccess) {
    fail<DeviceError>("{}: {} ({})", call, cudaGetErrorString(status), cudaGetErrorName(status));
  }
}

class DeviceTensors final : public TensorSource {
 public:
  DeviceTensors() = default;
  ~DeviceTensors() override {
    for (void* memory : memory_) {
      cudaFree(memory);
    }
  }
  DeviceTensors(const DeviceTensors&) = delete;
  DeviceTensors& operator=(const DeviceTensors&) = delete;
  DeviceTensors(DeviceTensors&&) = delete;
  DeviceTensors& operator=(DeviceTensors&&) = delete;

  std::int64_t bytes() const { return bytes_; }

  TensorView random(DType dtype, const Shape& shape) override {
    const TensorView view = tensor(dtype, shape);
    cuda::random_normal({.y = view, .global_cols = shape[shape.rank() - 1], .seed = 1, .stream = ++drawn_},
                        nullptr);
    return view;
  }
  TensorView ids(std::int64_t count, std::int64_t bound) override {
    const CounterRng rng(2, ++drawn_);
    return integers(count, [&](std::int64_t i) {
      return rng.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(bound));
    });
  }
  TensorView places(std::int64_t count, std::int64_t period) override {
    return integers(count, [&](std::int64_t i) { return i % period; });
  }
  cuda::Workspace workspace(std::int64_t bytes) override { return {allocate(bytes), bytes}; }
  const StepScalars* scalars() override {
    const StepScalars values{.lr = 1e-4, .inv_valid_tokens = 1e-4, .dropout_key = 3};
    return static_cast<const StepScalars*>(copied(&values, sizeof(values)));
  }
  const UpdateState* update_state() override {
    const UpdateState values{.updates = 1};
    return static_cast<const UpdateState*>(copied(&values, sizeof(values)));
  }

 private:
  void* copied(const void* values, std::size_t bytes) {
    void* memory = allocate(static_cast<std::int64_t>(bytes));
    check("cudaMemcpy", cudaMemcpy(memory, values, bytes, cudaMemcpyHostToDevice));
    return memory;
  }
  void* allocate(std::int64_t bytes) {
    void* memory = nullptr;
    check("cudaMalloc", cudaMalloc(&memory, static_cast<std::size_t>(std::max<std::int64_t>(bytes, 1))));
    memory_.push_back(memory);
    bytes_ += bytes;
    check("cudaMemset", cudaMemset(memory, 0, static_cast<std::size_t>(bytes)));
    return memory;
  }
  TensorView tensor(DType dtype, const Shape& shape) {
    return {allocate(shape.numel() * static_cast<std::int64_t>(dtype_bytes(dtype))), dtype, shape,
            Device{DeviceKind::kCuda, 0}};
  }
  template <class Value>
  TensorView integers(std::int64_t count, const Value& value) {
    std::vector<std::int32_t> values(static_cast<std::size_t>(count));
    for (std::int64_t i = 0; i < count; ++i) {
      values[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(value(i));
    }
    const TensorView view = tensor(DType::kInt32, {count});
    check("cudaMemcpy", cudaMemcpy(view.raw(), values.data(), values.size() * 4, cudaMemcpyHostToDevice));
    return view;
  }

  std::vector<void*> memory_;
  std::int64_t bytes_ = 0;
  std::uint64_t drawn_ = 0;
};

/// Seconds of one launch: median, and half the width between the first and the third quartile.
struct Timing {
  double median = 0.0;
  double spread = 0.0;
};

inline constexpr int kSamples = 25;
inline constexpr int kLaunchesPerSample = 10;

/// launch(i) for i = 0, 1, ...: a sample is the time between two events around ten of them.
template <class Launch>
Timing time_launches(const Launch& launch) {
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  check("cudaEventCreate", cudaEventCreate(&begin));
  check("cudaEventCreate", cudaEventCreate(&end));
  int number = 0;
  std::vector<double> seconds;
  for (int sample = -2; sample < kSamples; ++sample) {  // the first two warm up
    check("cudaEventRecord", cudaEventRecord(begin, nullptr));
    for (int i = 0; i < kLaunchesPerSample; ++i) {
      launch(number++);
    }
    check("cudaEventRecord", cudaEventRecord(end, nullptr));
    check("cudaEventSynchronize", cudaEventSynchronize(end));
    float milliseconds = 0.0F;
    check("cudaEventElapsedTime", cudaEventElapsedTime(&milliseconds, begin, end));
    if (sample >= 0) {
      seconds.push_back(static_cast<double>(milliseconds) * 1e-3 / kLaunchesPerSample);
    }
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::sort(seconds.begin(), seconds.end());
  return {.median = seconds[kSamples / 2], .spread = (seconds[kSamples * 3 / 4] - seconds[kSamples / 4]) / 2};
}

}  // namespace caravan::benchmark
