#include "kernels/cuda/hopper/maps.h"

#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <array>
#include <cstring>
#include <map>
#include <mutex>
#include <tuple>

#include "caravan/core/error.h"
#include "kernels/cuda/hopper/layout.h"
#include "kernels/cuda/launch_status.h"

namespace caravan::cuda::hopper {
namespace {

static_assert(sizeof(TensorMap) == sizeof(CUtensorMap) && alignof(TensorMap) >= alignof(CUtensorMap));

using EncodeTiled = PFN_cuTensorMapEncodeTiled_v12000;

/// From the driver that the runtime has loaded: a program linked against it would not start without one.
EncodeTiled encode_tiled() {
  constexpr unsigned kSince = 12000;
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t status = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kSince,
                                                              cudaEnableDefault, &found);
  if (status != cudaSuccess || found != cudaDriverEntryPointSuccess || function == nullptr) {
    fail<DeviceError>(
        "the driver has no cuTensorMapEncodeTiled ({}: {}), which the Hopper attention kernels need; use a "
        "driver for CUDA 12 or later, or set CARAVAN_HOPPER_ATTENTION=0",
        place_of("cudaGetDriverEntryPointByVersion"), cudaGetErrorString(status));
  }
  return reinterpret_cast<EncodeTiled>(function);
}

TensorMap encode(const HeadTensor& x, int rows) {
  static const EncodeTiled function = encode_tiled();
  const auto element = static_cast<cuuint64_t>(kElementBytes);
  const auto head_dim = static_cast<cuuint64_t>(x.head_dim);
  const auto heads = static_cast<cuuint64_t>(x.heads);
  const auto tokens = static_cast<cuuint64_t>(x.tokens);
  const std::array<cuuint64_t, 4> sizes = {head_dim, tokens, heads, static_cast<cuuint64_t>(x.batch)};
  const std::array<cuuint64_t, 3> strides = {heads * head_dim * element, head_dim * element,
                                             tokens * heads * head_dim * element};
  const std::array<cuuint32_t, 4> box = {kPanelColumns, static_cast<cuuint32_t>(rows), 1, 1};
  const std::array<cuuint32_t, 4> steps = {1, 1, 1, 1};
  CUtensorMap map;
  const CUresult status = function(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<void*>(x.data),
                                   sizes.data(), strides.data(), box.data(), steps.data(),
                                   CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                   CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) {
    fail<DeviceError>(
        "cuTensorMapEncodeTiled ({}) gives error {} for a tensor of {} rows of {} tokens, {} heads of {} at "
        "{}; this is a bug in Caravan, with CARAVAN_HOPPER_ATTENTION=0 other kernels run",
        place_of("cuTensorMapEncodeTiled"), static_cast<int>(status), x.batch, x.tokens, x.heads, x.head_dim,
        fmt::ptr(x.data));
  }
  TensorMap result{};
  std::memcpy(&result, &map, sizeof(result));
  return result;
}

}  // namespace

TensorMap tensor_map(const HeadTensor& x, int rows) {
  using Key = std::tuple<const void*, std::int64_t, std::int64_t, std::int64_t, std::int64_t, int>;
  // Tensors stand in arenas, so that steps meet the same addresses again; generation, whose lengths grow,
  // does not, and its maps are dropped now and then.
  constexpr std::size_t kMost = 4096;
  static std::mutex mutex;
  static std::map<Key, TensorMap> maps;
  const Key key{x.data, x.batch, x.tokens, x.heads, x.head_dim, rows};
  const std::lock_guard lock(mutex);
  if (const auto found = maps.find(key); found != maps.end()) {
    return found->second;
  }
  if (maps.size() >= kMost) {
    maps.clear();
  }
  return maps.emplace(key, encode(x, rows)).first->second;
}

}  // namespace caravan::cuda::hopper
