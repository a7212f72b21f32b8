// Adding, scaling, copying between dtypes and layouts, random values.
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/philox.h"

namespace caravan::cuda {
namespace {

template <class T>
struct Add {
  const T* x;
  const T* z;
  T* y;

  template <int N>
  __device__ void apply(std::int64_t at) const {
    const Pack<T, N> a = load_pack<N>(x + at);
    const Pack<T, N> b = load_pack<N>(z + at);
    Pack<T, N> sum;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      sum[i] = store_float<T>(load_float(a[i]) + load_float(b[i]));
    }
    store_pack<N>(y + at, sum);
  }
};

template <class T>
struct Scale {
  T* x;
  float factor;

  template <int N>
  __device__ void apply(std::int64_t at) const {
    Pack<T, N> pack = load_pack<N>(x + at);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      pack[i] = store_float<T>(load_float(pack[i]) * factor);
    }
    store_pack<N>(x + at, pack);
  }
};

template <class To, class From>
__device__ To converted(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else {
    return store_float<To>(load_float(value));
  }
}

template <class To, class From>
struct Convert {
  const From* from;
  To* to;

  template <int N>
  __device__ void apply(std::int64_t at) const {
    const Pack<From, N> source = load_pack<N>(from + at);
    Pack<To, N> target;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      target[i] = converted<To>(source[i]);
    }
    store_pack<N>(to + at, target);
  }
};

/// One element of two views of equal shape and any strides; `at` counts in row-major order.
template <class To, class From>
struct StridedConvert {
  const From* from;
  To* to;
  int rank;
  std::int64_t dims[Shape::kMaxRank];
  std::int64_t from_strides[Shape::kMaxRank];
  std::int64_t to_strides[Shape::kMaxRank];

  template <int N>
  __device__ void apply(std::int64_t at) const {
    static_assert(N == 1);
    std::int64_t from_offset = 0;
    std::int64_t to_offset = 0;
#pragma unroll
    for (int dim = Shape::kMaxRank - 1; dim >= 0; --dim) {
      if (dim < rank) {
        const std::int64_t index = at % dims[dim];
        at /= dims[dim];
        from_offset += index * from_strides[dim];
        to_offset += index * to_strides[dim];
      }
    }
    to[to_offset] = converted<To>(from[from_offset]);
  }
};

template <class T>
struct RandomNormal {
  T* y;
  std::int64_t cols;
  std::int64_t row_begin;
  std::int64_t col_begin;
  std::int64_t global_cols;
  double standard_deviation;
  std::uint64_t seed;
  std::uint64_t stream;

  template <int N>
  __device__ void apply(std::int64_t at) const {
    static_assert(N == 1);
    const std::int64_t index = (row_begin + at / cols) * global_cols + col_begin + at % cols;
    const double value = standard_deviation * philox_normal(seed, stream, static_cast<std::uint64_t>(index));
    y[at] = store_float<T>(static_cast<float>(value));
  }
};

template <class To, class From>
void launch_copy(const CopyArgs& args, StreamHandle stream) {
  const From* from = args.from.data<From>();
  To* to = args.to.data<To>();
  const std::int64_t count = args.from.numel();
  if (args.from.is_contiguous() && args.to.is_contiguous()) {
    constexpr int kN = 16 / static_cast<int>(std::max(sizeof(To), sizeof(From)));
    launch_elementwise<kN>("copy", Convert<To, From>{from, to}, count, is_aligned(from, to), stream);
    return;
  }
  StridedConvert<To, From> op{
      .from = from, .to = to, .rank = args.from.rank(), .dims = {}, .from_strides = {}, .to_strides = {}};
  for (int dim = 0; dim < op.rank; ++dim) {
    op.dims[dim] = args.from.dim(dim);
    op.from_strides[dim] = args.from.stride(dim);
    op.to_strides[dim] = args.to.stride(dim);
  }
  launch_elementwise<1>("copy_strided", op, count, false, stream);
}

}  // namespace

void add(const AddArgs& args, StreamHandle stream) {
  with_storage(args.y, [&]<class T>() {
    const Add<T> op{args.x.data<T>(), args.z.data<T>(), args.y.data<T>()};
    launch_elementwise<kPackSize<T>>("add", op, args.y.numel(), is_aligned(op.x, op.z, op.y), stream);
  });
}

void scale(const ScaleArgs& args, StreamHandle stream) {
  with_storage(args.x, [&]<class T>() {
    const Scale<T> op{args.x.data<T>(), static_cast<float>(args.factor)};
    launch_elementwise<kPackSize<T>>("scale", op, args.x.numel(), is_aligned(op.x), stream);
  });
}

void copy(const CopyArgs& args, StreamHandle stream) {
  if (args.from.dtype() == DType::kInt32 && args.to.dtype() == DType::kInt32) {
    launch_copy<std::int32_t, std::int32_t>(args, stream);
    return;
  }
  with_storage(args.to, [&]<class To>() {
    with_storage(args.from, [&]<class From>() { launch_copy<To, From>(args, stream); });
  });
}

void random_normal(const RandomNormalArgs& args, StreamHandle stream) {
  with_storage(args.y, [&]<class T>() {
    const RandomNormal<T> op{.y = args.y.data<T>(),
                             .cols = args.y.dim(args.y.rank() - 1),
                             .row_begin = args.row_begin,
                             .col_begin = args.col_begin,
                             .global_cols = args.global_cols,
                             .standard_deviation = args.standard_deviation,
                             .seed = args.seed,
                             .stream = args.stream};
    launch_elementwise<1>("random_normal", op, args.y.numel(), false, stream);
  });
}

}  // namespace caravan::cuda
