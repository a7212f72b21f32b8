#include "kernels/cpu/products.h"

#include <cblas.h>

#include <algorithm>
#include <cstring>

#include "caravan/core/narrow.h"
#include "caravan/core/parallel_for.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/scratch.h"

namespace caravan::cpu {
namespace {

/// Row-major c [m, n] = op(a) op(b) + (beta) c with leading dimensions.
template <class T>
struct Gemm {
  CBLAS_TRANSPOSE transpose_a;
  CBLAS_TRANSPOSE transpose_b;
  const T* a;
  const T* b;
  T* c;
  std::int64_t m, n, k;
  std::int64_t lda, ldb, ldc;
  T beta;
};

void call_blas(const Gemm<float>& g) {
  cblas_sgemm(CblasRowMajor, g.transpose_a, g.transpose_b, narrow<int>(g.m), narrow<int>(g.n),
              narrow<int>(g.k), 1.0F, g.a, narrow<int>(g.lda), g.b, narrow<int>(g.ldb), g.beta, g.c,
              narrow<int>(g.ldc));
}
void call_blas(const Gemm<double>& g) {
  cblas_dgemm(CblasRowMajor, g.transpose_a, g.transpose_b, narrow<int>(g.m), narrow<int>(g.n),
              narrow<int>(g.k), 1.0, g.a, narrow<int>(g.lda), g.b, narrow<int>(g.ldb), g.beta, g.c,
              narrow<int>(g.ldc));
}

/// One row: b is read once, which is all the time it takes. `rows`, `cols`: of b as stored.
void call_gemv(const Gemm<float>& g, CBLAS_TRANSPOSE transpose, std::int64_t rows, std::int64_t cols) {
  cblas_sgemv(CblasRowMajor, transpose, narrow<int>(rows), narrow<int>(cols), 1.0F, g.b, narrow<int>(g.ldb),
              g.a, 1, g.beta, g.c, 1);
}
void call_gemv(const Gemm<double>& g, CBLAS_TRANSPOSE transpose, std::int64_t rows, std::int64_t cols) {
  cblas_dgemv(CblasRowMajor, transpose, narrow<int>(rows), narrow<int>(cols), 1.0, g.b, narrow<int>(g.ldb),
              g.a, 1, g.beta, g.c, 1);
}

template <class T>
void multiply_part(const Gemm<T>& g) {
  if (g.m == 1 && g.transpose_a == CblasNoTrans) {
    const bool is_stored_transposed = g.transpose_b == CblasTrans;
    call_gemv(g, is_stored_transposed ? CblasNoTrans : CblasTrans, is_stored_transposed ? g.n : g.k,
              is_stored_transposed ? g.k : g.n);
  } else {
    call_blas(g);
  }
}

/// Columns [begin, end) of the longer side of c.
template <class T>
Gemm<T> part_of(const Gemm<T>& g, bool splits_columns, std::int64_t begin, std::int64_t end) {
  Gemm<T> part = g;
  if (splits_columns) {
    part.n = end - begin;
    part.b += begin * (g.transpose_b == CblasTrans ? g.ldb : 1);
    part.c += begin;
  } else {
    part.m = end - begin;
    part.a += begin * (g.transpose_a == CblasTrans ? 1 : g.lda);
    part.c += begin * g.ldc;
  }
  return part;
}

template <class T>
void multiply(const Gemm<T>& g) {
  if (g.m == 0 || g.n == 0) {
    return;
  }
  if (g.k == 0) {
    if (g.beta == T{}) {
      std::fill_n(g.c, g.m * g.n, T{});
    }
    return;
  }
  constexpr std::int64_t kUnit = 32;  // columns or rows a part is a multiple of: whole tiles of the BLAS
  constexpr std::int64_t kSmallWork = 1 << 18;
  const bool splits_columns = g.n >= g.m;
  const std::int64_t units = ((splits_columns ? g.n : g.m) + kUnit - 1) / kUnit;
  const std::int64_t pieces = std::min<std::int64_t>(thread_count(), units);
  if (pieces <= 1 || g.m * g.n * g.k < kSmallWork) {
    multiply_part(g);
    return;
  }
  parallel_for(pieces, 1, [&](std::int64_t first, std::int64_t last) {
    const std::int64_t begin = units * first / pieces * kUnit;
    const std::int64_t end = std::min(units * last / pieces * kUnit, splits_columns ? g.n : g.m);
    multiply_part(part_of(g, splits_columns, begin, end));
  });
}

const TensorView& dense(const WeightView& weight) {
  return std::get<DenseWeight>(weight).values;
}

template <class T>
T beta_of(Accumulate accumulate) {
  return accumulate == Accumulate::kAdd ? T{1} : T{};
}

/// Calls body.template operator()<T>() for float or double.
template <class Body>
void with_real(DType dtype, Body&& body) {
  if (dtype == DType::kFloat64) {
    body.template operator()<double>();
  } else {
    body.template operator()<float>();
  }
}

}  // namespace

void matmul_nt(const simd::SimdTable& table, const MatmulNtArgs& args) {
  const std::int64_t k = args.a.dim(1);
  const std::int64_t n = args.c.dim(1);
  with_real(args.c.dtype(), [&]<class T>() {
    if (args.c.dim(0) == 1) {
      parallel_for(n, grain_rows(k), [&](std::int64_t begin, std::int64_t end) {
        simd::ops_of<T>(table).row_dots({.rows = dense(args.b).data<T>() + begin * k,
                                         .x = args.a.data<T>(),
                                         .y = args.c.data<T>() + begin,
                                         .count = end - begin,
                                         .width = k,
                                         .adds = args.accumulate == Accumulate::kAdd});
      });
      return;
    }
    multiply<T>({CblasNoTrans, CblasTrans, args.a.data<T>(), dense(args.b).data<T>(), args.c.data<T>(),
                 args.c.dim(0), n, k, k, k, n, beta_of<T>(args.accumulate)});
  });
}

void matmul_nn(const MatmulNnArgs& args) {
  const std::int64_t k = args.a.dim(1);
  const std::int64_t n = args.c.dim(1);
  with_real(args.c.dtype(), [&]<class T>() {
    multiply<T>({CblasNoTrans, CblasNoTrans, args.a.data<T>(), dense(args.b).data<T>(), args.c.data<T>(),
                 args.c.dim(0), n, k, k, n, n, beta_of<T>(args.accumulate)});
  });
}

void matmul_tn(const MatmulTnArgs& args) {
  const std::int64_t m = args.c.dim(0);
  const std::int64_t n = args.c.dim(1);
  with_real(args.c.dtype(), [&]<class T>() {
    multiply<T>({CblasTrans, CblasNoTrans, args.a.data<T>(), args.b.data<T>(), args.c.data<T>(), m, n,
                 args.a.dim(0), m, n, n, beta_of<T>(args.accumulate)});
  });
}

void use_one_blas_thread() {
  openblas_set_num_threads(1);
}

}  // namespace caravan::cpu
