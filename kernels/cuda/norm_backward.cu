// RMSNorm backward (docs/derivations/rmsnorm.md): a block has some rows, one at a time, a thread the same
// columns of all of them and with them their sums of dweight.
#include "kernels/cuda/norm_rows.h"
#include "kernels/cuda/tile_ops.h"

namespace caravan::cuda {
namespace {

/// Parts of the rows, a block's each, whose sums of dweight are added up in the end: two blocks for each
/// processor of the largest GPU.
constexpr std::int64_t kMostParts = 264;

template <class T>
struct BackwardRows {
  const T* dy;
  const T* x;
  const T* weight;
  const float* rstd;
  T* dx;
  float* partials;  // [parts, width], null: dweight is not wanted
  std::int64_t rows;
  std::int64_t rows_per_part;
  int width;
};

/// What a thread adds of one row to dx and to its sums of dweight: with n = x · rstd and s = Σ dy·weight·n /
/// D, dx += (dy · weight − n · s) · rstd, dweight += dy · n.
template <class T, int N>
__device__ void add_pack(const Pack<T, N>& dy, const Pack<T, N>& x, const Pack<T, N>& weight, float rstd,
                         float s, Pack<T, N>& dx, float* sums) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float n = load_float(x[i]) * rstd;
    const float g = load_float(dy[i]);
    dx[i] = store_float<T>(load_float(dx[i]) + (g * load_float(weight[i]) - n * s) * rstd);
    sums[i] += g * n;
  }
}

template <class T, int N>
__device__ float dot_of_pack(const Pack<T, N>& dy, const Pack<T, N>& x, const Pack<T, N>& weight) {
  float dot = 0.0F;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    dot += load_float(dy[i]) * load_float(weight[i]) * load_float(x[i]);
  }
  return dot;
}

/// Rows whose packs are under way to shared memory or there, of a thread with kPacks of each.
template <int kPacks>
inline constexpr int kStages = kPacks == 1 ? 4 : 2;

/// Rows are fetched ahead. A thread reads what it has fetched itself, so the only barriers are those of the
/// rows' sums; its sums of dweight stay in registers.
template <class T, int N, int kPacks>
__global__ void __launch_bounds__(kMostNormThreads) rmsnorm_backward_kernel(BackwardRows<T> p) {
  SharedMemory smem;
  auto* scratch = smem.take<float>(kNormScratchFloats);
  const int threads = static_cast<int>(blockDim.x);
  auto* fetched = smem.take<Pack<T, N>>(kStages<kPacks> * 3 * kPacks * threads);
  const auto slot = [&](std::int64_t row, int which, int k) -> Pack<T, N>& {
    const int stage = static_cast<int>(row % kStages<kPacks>);
    return fetched[((stage * 3 + which) * kPacks + k) * threads + static_cast<int>(threadIdx.x)];
  };
  enum { kDy, kX, kDx };
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * p.rows_per_part;
  const std::int64_t end = begin + p.rows_per_part < p.rows ? begin + p.rows_per_part : p.rows;
  const auto fetch = [&](std::int64_t row) {
    if (row < end) {
      for_columns<N, kPacks>(p.width, [&](int column, int k) {
        const std::int64_t at = row * p.width + column;
        cp_async_16(&slot(row, kDy, k), p.dy + at, true);
        cp_async_16(&slot(row, kX, k), p.x + at, true);
        cp_async_16(&slot(row, kDx, k), p.dx + at, true);
      });
    }
    cp_async_commit();  // of nothing, too: the waits count groups
  };

  float sums[kPacks][N] = {};
  for (int ahead = 0; ahead < kStages<kPacks> - 1; ++ahead) {
    fetch(begin + ahead);
  }
  for (std::int64_t row = begin; row < end; ++row) {
    fetch(row + kStages<kPacks> - 1);
    cp_async_wait<kStages<kPacks> - 1>();
    const float rstd = p.rstd[row];
    float dot = 0.0F;
    for_columns<N, kPacks>(p.width, [&](int column, int k) {
      dot += dot_of_pack(slot(row, kDy, k), slot(row, kX, k), load_pack<N>(p.weight + column));
    });
    const float s = block_sum(dot, scratch) * rstd / static_cast<float>(p.width);
    for_columns<N, kPacks>(p.width, [&](int column, int k) {
      Pack<T, N> dx = slot(row, kDx, k);
      add_pack(slot(row, kDy, k), slot(row, kX, k), load_pack<N>(p.weight + column), rstd, s, dx, sums[k]);
      store_pack<N>(p.dx + row * p.width + column, dx);
    });
  }
  if (p.partials != nullptr) {
    float* partial = p.partials + static_cast<std::int64_t>(blockIdx.x) * p.width;
    for_columns<N, kPacks>(p.width, [&](int column, int k) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        partial[column + i] = sums[k][i];
      }
    });
  }
}

/// Rows of any width: read twice, sums of dweight in `partials`.
template <class T, int N>
__global__ void __launch_bounds__(kMostNormThreads) rmsnorm_backward_any_width_kernel(BackwardRows<T> p) {
  SharedMemory smem;
  auto* scratch = smem.take<float>(kNormScratchFloats);
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * p.rows_per_part;
  const std::int64_t end = begin + p.rows_per_part < p.rows ? begin + p.rows_per_part : p.rows;
  float* partial =
      p.partials == nullptr ? nullptr : p.partials + static_cast<std::int64_t>(blockIdx.x) * p.width;
  for (std::int64_t row = begin; row < end; ++row) {
    const std::int64_t base = row * p.width;
    const float rstd = p.rstd[row];
    float dot = 0.0F;
    for_columns<N, 0>(p.width, [&](int column, int /*k*/) {
      dot += dot_of_pack(load_pack<N>(p.dy + base + column), load_pack<N>(p.x + base + column),
                         load_pack<N>(p.weight + column));
    });
    const float s = block_sum(dot, scratch) * rstd / static_cast<float>(p.width);
    for_columns<N, 0>(p.width, [&](int column, int /*k*/) {
      Pack<T, N> dx = load_pack<N>(p.dx + base + column);
      float sums[N] = {};
      add_pack(load_pack<N>(p.dy + base + column), load_pack<N>(p.x + base + column),
               load_pack<N>(p.weight + column), rstd, s, dx, sums);
      store_pack<N>(p.dx + base + column, dx);
      if (partial != nullptr) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
          partial[column + i] = (row == begin ? 0.0F : partial[column + i]) + sums[i];
        }
      }
    });
  }
}

constexpr int kAddWarps = 32;  // that share a block's 32 columns

/// dweight += Σ over parts: warp w of a block adds parts w, w + kAddWarps, ..., and then their sums are added
/// in the order of w.
template <class W>
__global__ void __launch_bounds__(kAddWarps* kWarpSize)
    add_parts_kernel(const float* partials, std::int64_t parts, int width, W* dweight) {
  SharedMemory smem;
  auto* sums = smem.take<float>(kAddWarps * kWarpSize);
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int column = static_cast<int>(blockIdx.x) * kWarpSize + lane;
  float sum = 0.0F;
  if (column < width) {
    for (std::int64_t part = warp; part < parts; part += kAddWarps) {
      sum += partials[part * width + column];
    }
  }
  sums[warp * kWarpSize + lane] = sum;
  __syncthreads();
  if (warp != 0 || column >= width) {
    return;
  }
  for (int other = 1; other < kAddWarps; ++other) {
    sum += sums[other * kWarpSize + lane];
  }
  dweight[column] = store_float<W>(load_float(dweight[column]) + sum);
}

/// {parts, rows of each}
std::pair<std::int64_t, std::int64_t> divide(std::int64_t rows) {
  const std::int64_t per_part = (rows + kMostParts - 1) / kMostParts;
  return {per_part > 0 ? (rows + per_part - 1) / per_part : 0, per_part};
}

template <class T>
void launch_backward(const BackwardRows<T>& p, std::int64_t parts, StreamHandle stream) {
  constexpr std::size_t kScratchBytes = kNormScratchFloats * sizeof(float);
  with_packs<T>(p.width, is_aligned(p.dy, p.x, p.weight, p.dx), [&]<int N, int kPacks>(unsigned threads) {
    LaunchShape shape{.grid = static_cast<unsigned>(parts),
                      .block = threads,
                      .shared_bytes = kScratchBytes,
                      .stream = stream};
    if constexpr (kPacks == 0) {
      launch("rmsnorm_backward", rmsnorm_backward_any_width_kernel<T, N>, shape, p);
    } else {
      shape.shared_bytes += std::size_t{kStages<kPacks> * 3 * kPacks} * threads * sizeof(Pack<T, N>);
      launch("rmsnorm_backward", rmsnorm_backward_kernel<T, N, kPacks>, shape, p);
    }
  });
}

}  // namespace

std::int64_t rmsnorm_backward_workspace_bytes(const RmsNormBackwardArgs& args) {
  const std::int64_t parts = divide(args.rstd.numel()).first;
  return args.dweight.defined() ? parts * args.weight.dim(0) * static_cast<std::int64_t>(sizeof(float)) : 0;
}

void rmsnorm_backward(const RmsNormBackwardArgs& args, const Workspace& workspace, StreamHandle stream) {
  const auto [parts, rows_per_part] = divide(args.rstd.numel());
  if (parts == 0) {
    return;
  }
  const std::int64_t needed = rmsnorm_backward_workspace_bytes(args);
  check_workspace("rmsnorm_backward", workspace.bytes, needed);
  const auto width = static_cast<int>(args.weight.dim(0));
  auto* partials = args.dweight.defined() ? static_cast<float*>(workspace.data) : nullptr;
  with_storage(args.dx, [&]<class T>() {
    launch_backward<T>({.dy = args.dy.data<T>(),
                        .x = args.x.data<T>(),
                        .weight = args.weight.data<T>(),
                        .rstd = args.rstd.data<float>(),
                        .dx = args.dx.data<T>(),
                        .partials = partials,
                        .rows = args.rstd.numel(),
                        .rows_per_part = rows_per_part,
                        .width = width},
                       parts, stream);
  });
  if (partials != nullptr) {
    with_storage(args.dweight, [&]<class W>() {
      launch("rmsnorm_add_parts", add_parts_kernel<W>,
             {.grid = static_cast<unsigned>((width + kWarpSize - 1) / kWarpSize),
              .block = kAddWarps * kWarpSize,
              .shared_bytes = kAddWarps * kWarpSize * sizeof(float),
              .stream = stream},
             partials, parts, width, args.dweight.data<W>());
    });
  }
}

}  // namespace caravan::cuda
