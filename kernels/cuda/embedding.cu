// Rows of a table by index, and the deterministic scatter of their gradients: tokens are sorted by row with a
// stable radix sort, so the tokens of a row stand together in the order of t and one block adds them up.
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launchers.h"

namespace caravan::cuda {
namespace {

template <class T>
struct Lookup {
  const T* weight;
  const std::int32_t* ids;
  T* y;
  std::int64_t width;
  std::int64_t rows;
  std::int64_t vocab_begin;

  /// N divides width, so a pack lies in one row.
  template <int N>
  __device__ void apply(std::int64_t at) const {
    const std::int64_t row = ids[at / width] - vocab_begin;
    Pack<T, N> pack;
    if (row >= 0 && row < rows) {
      pack = load_pack<N>(weight + row * width + at % width);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        pack[i] = store_float<T>(0.0F);
      }
    }
    store_pack<N>(y + at, pack);
  }
};

// ---- stable sort of the tokens by row: one block, 4 bits a pass, every thread a run of neighbouring tokens

constexpr int kSortThreads = 512;
constexpr int kDigits = 16;
constexpr int kDigitBits = 4;

struct SortRun {
  std::int64_t begin, end;
};

__device__ SortRun run_of(int thread, std::int64_t count) {
  const std::int64_t each = (count + kSortThreads - 1) / kSortThreads;
  const std::int64_t begin = thread * each < count ? thread * each : count;
  return {begin, begin + each < count ? begin + each : count};
}

/// Exclusive prefix sums of counts[kDigits · kSortThreads] in place, by all threads; `totals`: one int per
/// warp.
__device__ void exclusive_scan(int* counts, int* totals) {
  const int thread = static_cast<int>(threadIdx.x);
  int* mine = counts + thread * kDigits;
  int sum = 0;
  for (int i = 0; i < kDigits; ++i) {
    sum += mine[i];
  }
  int inclusive = sum;
  for (int delta = 1; delta < kWarpSize; delta *= 2) {
    const int below = __shfl_up_sync(kAllLanes, inclusive, delta);
    inclusive += thread % kWarpSize >= delta ? below : 0;
  }
  if (thread % kWarpSize == kWarpSize - 1) {
    totals[thread / kWarpSize] = inclusive;
  }
  __syncthreads();
  int before = inclusive - sum;
  for (int warp = 0; warp < thread / kWarpSize; ++warp) {
    before += totals[warp];
  }
  for (int i = 0; i < kDigits; ++i) {
    const int value = mine[i];
    mine[i] = before;
    before += value;
  }
  __syncthreads();
}

/// tokens[0] receives 0 .. count − 1 ordered by row, equal rows in their order; tokens[1] is scratch. Passes
/// are even.
__global__ void __launch_bounds__(kSortThreads)
    sort_tokens_kernel(const std::int32_t* ids, std::int64_t count, std::int64_t vocab_begin,
                       std::int64_t rows, int passes, std::int32_t* first, std::int32_t* second) {
  SharedMemory smem;
  auto* counts = smem.take<int>(kDigits * kSortThreads);  // [digit, thread]
  auto* totals = smem.take<int>(kSortThreads / kWarpSize);
  const int thread = static_cast<int>(threadIdx.x);
  const SortRun run = run_of(thread, count);
  // Tokens of other rows come last: their key is the number of rows.
  const auto digit_of = [&](std::int32_t token, int pass) {
    const std::int64_t row = ids[token] - vocab_begin;
    const std::int64_t key = row >= 0 && row < rows ? row : rows;
    return static_cast<int>(key >> (pass * kDigitBits)) % kDigits;
  };
  for (std::int64_t t = run.begin; t < run.end; ++t) {
    first[t] = static_cast<std::int32_t>(t);
  }
  __syncthreads();
  const std::int32_t* from = first;
  std::int32_t* to = second;
  for (int pass = 0; pass < passes; ++pass) {
    for (int digit = 0; digit < kDigits; ++digit) {
      counts[digit * kSortThreads + thread] = 0;
    }
    for (std::int64_t i = run.begin; i < run.end; ++i) {
      ++counts[digit_of(from[i], pass) * kSortThreads + thread];
    }
    __syncthreads();
    exclusive_scan(counts, totals);
    for (std::int64_t i = run.begin; i < run.end; ++i) {
      const std::int32_t token = from[i];
      to[counts[digit_of(token, pass) * kSortThreads + thread]++] = token;
    }
    __syncthreads();
    std::int32_t* swapped = to;
    to = const_cast<std::int32_t*>(from);
    from = swapped;
  }
}

/// Block i begins the run of one row, or has nothing to do.
template <int N, class T, class W>
__global__ void __launch_bounds__(kElementwiseThreads)
    add_rows_kernel(const T* dy, const std::int32_t* ids, const std::int32_t* sorted, std::int64_t count,
                    std::int64_t width, std::int64_t rows, std::int64_t vocab_begin, W* dweight) {
  const auto begin = static_cast<std::int64_t>(blockIdx.x);
  const std::int64_t row = ids[sorted[begin]] - vocab_begin;
  if (row < 0 || row >= rows || (begin > 0 && ids[sorted[begin - 1]] - vocab_begin == row)) {
    return;
  }
  for (std::int64_t column = static_cast<std::int64_t>(threadIdx.x) * N; column < width;
       column += kElementwiseThreads * N) {
    float sums[N] = {};
    for (std::int64_t i = begin; i < count && ids[sorted[i]] - vocab_begin == row; ++i) {
      const Pack<T, N> pack = load_pack<N>(dy + sorted[i] * width + column);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        sums[j] += load_float(pack[j]);
      }
    }
    W* to = dweight + row * width + column;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      to[j] = store_float<W>(load_float(to[j]) + sums[j]);
    }
  }
}

int even_passes(std::int64_t largest_key) {
  int passes = 0;
  for (std::int64_t key = largest_key; key > 0; key >>= kDigitBits) {
    ++passes;
  }
  return passes + passes % 2;
}

}  // namespace

void embedding_forward(const EmbeddingForwardArgs& args, StreamHandle stream) {
  with_storage(args.y, [&]<class T>() {
    const Lookup<T> op{.weight = args.weight.data<T>(),
                       .ids = args.ids.data<std::int32_t>(),
                       .y = args.y.data<T>(),
                       .width = args.weight.dim(1),
                       .rows = args.weight.dim(0),
                       .vocab_begin = args.vocab_begin};
    launch_elementwise<kPackSize<T>>("embedding_forward", op, args.y.numel(),
                                     op.width % kPackSize<T> == 0 && is_aligned(op.weight, op.y), stream);
  });
}

std::int64_t embedding_backward_workspace_bytes(const EmbeddingBackwardArgs& args) {
  return 2 * args.ids.numel() * static_cast<std::int64_t>(sizeof(std::int32_t));
}

void embedding_backward(const EmbeddingBackwardArgs& args, const Workspace& workspace, StreamHandle stream) {
  const std::int64_t count = args.ids.numel();
  if (count == 0 || args.dy.numel() == 0) {
    return;
  }
  const std::int64_t needed = embedding_backward_workspace_bytes(args);
  check_workspace("embedding_backward", workspace.bytes, needed);
  const std::int64_t rows = args.dweight.dim(0);
  const std::int64_t width = args.dweight.dim(1);
  const auto* ids = args.ids.data<std::int32_t>();
  auto* sorted = static_cast<std::int32_t*>(workspace.data);
  launch("embedding_sort", sort_tokens_kernel,
         {.grid = 1,
          .block = kSortThreads,
          .shared_bytes = (kDigits * kSortThreads + kSortThreads / kWarpSize) * sizeof(int),
          .stream = stream},
         ids, count, args.vocab_begin, rows, even_passes(rows), sorted, sorted + count);
  const LaunchShape shape{
      .grid = static_cast<unsigned>(count), .block = kElementwiseThreads, .stream = stream};
  with_storage(args.dy, [&]<class T>() {
    with_gradient<T>(args.dweight, [&]<class W>() {
      const T* dy = args.dy.data<T>();
      if (width % kPackSize<T> == 0 && is_aligned(dy)) {
        launch("embedding_backward", add_rows_kernel<kPackSize<T>, T, W>, shape, dy, ids, sorted, count,
               width, rows, args.vocab_begin, args.dweight.data<W>());
      } else {
        launch("embedding_backward", add_rows_kernel<1, T, W>, shape, dy, ids, sorted, count, width, rows,
               args.vocab_begin, args.dweight.data<W>());
      }
    });
  });
}

}  // namespace caravan::cuda
