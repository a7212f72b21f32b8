// Large products through cuBLASLt, opened at run time: a machine without a GPU needs none of its libraries.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>

#include "kernels/cuda/device_runtime.h"

namespace caravan::cuda {

/// float32 products are in float32 throughout (no TF32); 16-bit ones accumulate in float32. The algorithm of
/// a product of given shapes, types and alignment is chosen once, by cuBLASLt's heuristic, among those that
/// add partial sums in float32 in a step of their own, so that equal calls give equal bits
/// (docs/notes/devices.md).
class Products {
 public:
  /// Bytes of workspace that run() may use: NVIDIA's advice for Hopper (cuBLAS guide, cublasSetWorkspace).
  static constexpr std::int64_t kWorkspaceBytes = std::int64_t{32} << 20U;

  /// Opens the library. Throws DeviceError naming the places that were tried, or the version that was found.
  Products();
  ~Products();
  Products(const Products&) = delete;
  Products& operator=(const Products&) = delete;
  Products(Products&&) = delete;
  Products& operator=(Products&&) = delete;

  /// "13.1.0"
  std::string version() const;
  /// `workspace` belongs to the stream. Enqueued only.
  void run(const Product& product, void* workspace, cudaStream_t stream);

 private:
  struct Library;
  struct Plan;
  class Plans;
  static std::shared_ptr<const Library> find_library();

  std::shared_ptr<const Library> library_;
  std::unique_ptr<Plans> plans_;
};

}  // namespace caravan::cuda
