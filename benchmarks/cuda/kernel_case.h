// A kernel to be timed, and where its tensors come from.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <functional>
#include <string>

#include "caravan/backend/backend.h"
#include "kernels/cuda/launchers.h"

namespace caravan::benchmark {

/// Device memory for timing, shapes alone for counting.
class TensorSource {
 public:
  TensorSource() = default;
  virtual ~TensorSource() = default;
  TensorSource(const TensorSource&) = delete;
  TensorSource& operator=(const TensorSource&) = delete;
  TensorSource(TensorSource&&) = delete;
  TensorSource& operator=(TensorSource&&) = delete;

  /// Standard normal values: zeros would cost less power and flatter the rates.
  virtual TensorView random(DType dtype, const Shape& shape) = 0;
  /// Uniform in [0, bound), [count] int32.
  virtual TensorView ids(std::int64_t count, std::int64_t bound) = 0;
  /// 0, 1, ..., period − 1, 0, 1, ...; [count] int32. A period of 1 gives zeros.
  virtual TensorView places(std::int64_t count, std::int64_t period) = 0;
  virtual cuda::Workspace workspace(std::int64_t bytes) = 0;
  /// The numbers of a step, where kernels read them.
  virtual const StepScalars* scalars() = 0;
  virtual const UpdateState* update_state() = 0;
};

struct KernelCase {
  std::string name;
  std::string shape;
  /// The least that memory must move (each operand once; statistics and the weights of a norm left out), or
  /// the useful operations of attention; the other one is 0.
  std::int64_t bytes = 0;
  std::int64_t flops = 0;
  /// Of `bytes`, what the table's op does not count.
  std::int64_t beyond_table = 0;
  std::function<bool()> runs = {};  // asked of the GPU that was opened; empty: everywhere
  std::function<void(cuda::StreamHandle)> launch;
  /// The same op of a backend's table; empty where the table has none.
  std::function<void(Backend&, Stream&)> count = {};
};

using CaseMaker = std::function<KernelCase(TensorSource&)>;

}  // namespace caravan::benchmark
