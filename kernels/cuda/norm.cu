// RMSNorm (Zhang and Sennrich 2019, eq. 4) with the pending residual add in front, forward and backward. The
// derivation is docs/derivations/rmsnorm.md.
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launchers.h"

namespace caravan::cuda {
namespace {

constexpr int kForwardWarps = 4;       // rows of a block
constexpr int kBackwardThreads = 256;  // share one row at a time
/// Parts of the rows whose sums of dweight are added up in the end: two blocks for each processor of the
/// largest GPU.
constexpr std::int64_t kMostParts = 264;

// ---- forward: a warp per row

template <class T>
struct ForwardRow {
  const T* x;
  const T* delta;  // null: none pending
  T* sum;
  const T* weight;
  T* y;
  float* rstd;
  std::int64_t rows;
  int width;
  float eps;
};

/// kPacks > 0: a lane keeps its packs in registers, so the row is read once; width ≤ kPacks · 32 · N. kPacks
/// = 0: rows of any width, read again for the output.
template <class T, int N, int kPacks>
__global__ void __launch_bounds__(kForwardWarps* kWarpSize) rmsnorm_forward_kernel(ForwardRow<T> p) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kForwardWarps + warp;
  if (row >= p.rows) {
    return;  // the whole warp; nobody waits for it
  }
  const std::int64_t base = row * p.width;
  // The stream as it is stored: the backward pass sees the same rounding.
  const auto pack_at = [&](int column) {
    Pack<T, N> x = load_pack<N>(p.x + base + column);
    if (p.delta != nullptr) {
      const Pack<T, N> delta = load_pack<N>(p.delta + base + column);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        x[i] = store_float<T>(load_float(x[i]) + load_float(delta[i]));
      }
      store_pack<N>(p.sum + base + column, x);
    }
    return x;
  };
  const auto squares_of = [](const Pack<T, N>& x) {
    float squares = 0.0F;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      squares += load_float(x[i]) * load_float(x[i]);
    }
    return squares;
  };
  const auto write = [&](int column, const Pack<T, N>& x, float rstd) {
    const Pack<T, N> weight = load_pack<N>(p.weight + column);
    Pack<T, N> y;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      y[i] = store_float<T>(load_float(x[i]) * rstd * load_float(weight[i]));
    }
    store_pack<N>(p.y + base + column, y);
  };
  const auto finish = [&](float squares) {
    const float rstd = rsqrtf(warp_sum(squares) / static_cast<float>(p.width) + p.eps);
    if (lane == 0) {
      p.rstd[row] = rstd;
    }
    return rstd;
  };

  float squares = 0.0F;
  if constexpr (kPacks > 0) {
    Pack<T, N> kept[kPacks];
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int column = (k * kWarpSize + lane) * N;
      if (column < p.width) {
        kept[k] = pack_at(column);
        squares += squares_of(kept[k]);
      }
    }
    const float rstd = finish(squares);
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int column = (k * kWarpSize + lane) * N;
      if (column < p.width) {
        write(column, kept[k], rstd);
      }
    }
  } else {
    for (int column = lane * N; column < p.width; column += kWarpSize * N) {
      squares += squares_of(pack_at(column));
    }
    const float rstd = finish(squares);
    const T* row_sum = p.delta != nullptr ? p.sum : p.x;  // what this lane has written itself
    for (int column = lane * N; column < p.width; column += kWarpSize * N) {
      write(column, load_pack<N>(row_sum + base + column), rstd);
    }
  }
}

template <class T>
void launch_forward(const ForwardRow<T>& p, StreamHandle stream) {
  constexpr int kN = kPackSize<T>;
  const LaunchShape shape{.grid = static_cast<unsigned>((p.rows + kForwardWarps - 1) / kForwardWarps),
                          .block = kForwardWarps * kWarpSize,
                          .stream = stream};
  const bool in_packs = p.width % kN == 0 && is_aligned(p.x, p.delta, p.sum, p.weight, p.y);
  const int packs = (p.width / kN + kWarpSize - 1) / kWarpSize;  // of a lane
  if (!in_packs) {
    launch("rmsnorm_forward", rmsnorm_forward_kernel<T, 1, 0>, shape, p);
  } else if (packs <= 2) {
    launch("rmsnorm_forward", rmsnorm_forward_kernel<T, kN, 2>, shape, p);
  } else if (packs <= 8) {
    launch("rmsnorm_forward", rmsnorm_forward_kernel<T, kN, 8>, shape, p);
  } else if (packs <= 16) {
    launch("rmsnorm_forward", rmsnorm_forward_kernel<T, kN, 16>, shape, p);
  } else {
    launch("rmsnorm_forward", rmsnorm_forward_kernel<T, kN, 0>, shape, p);
  }
}

// ---- backward: a block per row, a thread keeps its columns and with them its sums of dweight

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

/// With n = x · rstd and s = Σ dy·weight·n / D:  dx += (dy · weight − n · s) · rstd, and this part's Σ dy ·
/// n. kPacks > 0: width ≤ kPacks · threads · N, sums stay in registers; kPacks = 0: any width, sums in
/// `partials`.
template <class T, int N, int kPacks>
__global__ void __launch_bounds__(kBackwardThreads) rmsnorm_backward_kernel(BackwardRows<T> p) {
  SharedMemory smem;
  auto* scratch = smem.take<float>(kBackwardThreads / kWarpSize);
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * p.rows_per_part;
  const std::int64_t end = begin + p.rows_per_part < p.rows ? begin + p.rows_per_part : p.rows;
  float* partial =
      p.partials == nullptr ? nullptr : p.partials + static_cast<std::int64_t>(blockIdx.x) * p.width;
  constexpr int kKept = kPacks > 0 ? kPacks : 1;
  float sums[kKept][N] = {};

  const auto for_columns = [&](auto&& body) {
    if constexpr (kPacks > 0) {
#pragma unroll
      for (int k = 0; k < kPacks; ++k) {
        const int column = (k * kBackwardThreads + thread) * N;
        if (column < p.width) {
          body(column, k);
        }
      }
    } else {
      for (int column = thread * N; column < p.width; column += kBackwardThreads * N) {
        body(column, 0);
      }
    }
  };

  for (std::int64_t row = begin; row < end; ++row) {
    const std::int64_t base = row * p.width;
    const float rstd = p.rstd[row];
    float dot = 0.0F;
    for_columns([&](int column, int /*k*/) {
      const Pack<T, N> dy = load_pack<N>(p.dy + base + column);
      const Pack<T, N> x = load_pack<N>(p.x + base + column);
      const Pack<T, N> weight = load_pack<N>(p.weight + column);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        dot += load_float(dy[i]) * load_float(weight[i]) * load_float(x[i]);
      }
    });
    const float s = block_sum(dot, scratch) * rstd / static_cast<float>(p.width);
    for_columns([&](int column, int k) {
      const Pack<T, N> dy = load_pack<N>(p.dy + base + column);  // from the first pass: in L1
      const Pack<T, N> x = load_pack<N>(p.x + base + column);
      const Pack<T, N> weight = load_pack<N>(p.weight + column);
      Pack<T, N> dx = load_pack<N>(p.dx + base + column);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float n = load_float(x[i]) * rstd;
        const float g = load_float(dy[i]);
        dx[i] = store_float<T>(load_float(dx[i]) + (g * load_float(weight[i]) - n * s) * rstd);
        if constexpr (kPacks > 0) {
          sums[k][i] += g * n;
        } else if (partial != nullptr) {
          partial[column + i] = (row == begin ? 0.0F : partial[column + i]) + g * n;
        }
      }
      store_pack<N>(p.dx + base + column, dx);
    });
  }
  if constexpr (kPacks > 0) {
    if (partial != nullptr) {
      for_columns([&](int column, int k) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
          partial[column + i] = sums[k][i];
        }
      });
    }
  }
}

/// dweight += Σ over parts, in their order.
template <class W>
__global__ void __launch_bounds__(kElementwiseThreads)
    add_parts_kernel(const float* partials, std::int64_t parts, int width, W* dweight) {
  const int column = static_cast<int>(blockIdx.x) * kElementwiseThreads + static_cast<int>(threadIdx.x);
  if (column >= width) {
    return;
  }
  float sum = 0.0F;
  for (std::int64_t part = 0; part < parts; ++part) {
    sum += partials[part * width + column];
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
  constexpr int kN = kPackSize<T>;
  const LaunchShape shape{.grid = static_cast<unsigned>(parts),
                          .block = kBackwardThreads,
                          .shared_bytes = kBackwardThreads / kWarpSize * sizeof(float),
                          .stream = stream};
  const bool in_packs = p.width % kN == 0 && is_aligned(p.dy, p.x, p.weight, p.dx);
  const int packs = (p.width / kN + kBackwardThreads - 1) / kBackwardThreads;
  if (!in_packs) {
    launch("rmsnorm_backward", rmsnorm_backward_kernel<T, 1, 0>, shape, p);
  } else if (packs <= 1) {
    launch("rmsnorm_backward", rmsnorm_backward_kernel<T, kN, 1>, shape, p);
  } else if (packs <= 2) {
    launch("rmsnorm_backward", rmsnorm_backward_kernel<T, kN, 2>, shape, p);
  } else if (packs <= 4) {
    launch("rmsnorm_backward", rmsnorm_backward_kernel<T, kN, 4>, shape, p);
  } else {
    launch("rmsnorm_backward", rmsnorm_backward_kernel<T, kN, 0>, shape, p);
  }
}

}  // namespace

void rmsnorm_forward(const RmsNormForwardArgs& args, StreamHandle stream) {
  if (args.rstd.numel() == 0) {
    return;
  }
  with_storage(args.y, [&]<class T>() {
    const bool has_delta = args.delta.defined();
    launch_forward<T>({.x = args.x.data<T>(),
                       .delta = has_delta ? args.delta.data<T>() : nullptr,
                       .sum = has_delta ? args.sum.data<T>() : nullptr,
                       .weight = args.weight.data<T>(),
                       .y = args.y.data<T>(),
                       .rstd = args.rstd.data<float>(),
                       .rows = args.rstd.numel(),
                       .width = static_cast<int>(args.weight.dim(0)),
                       .eps = static_cast<float>(args.eps)},
                      stream);
  });
}

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
             {.grid = static_cast<unsigned>((width + kElementwiseThreads - 1) / kElementwiseThreads),
              .block = kElementwiseThreads,
              .stream = stream},
             partials, parts, width, args.dweight.data<W>());
    });
  }
}

}  // namespace caravan::cuda
