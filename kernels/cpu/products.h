// Matrix products by OpenBLAS, divided over our own threads; of a single row by our own loop.
#pragma once

#include "caravan/backend/op_args.h"
#include "kernels/cpu/simd_table.h"

namespace caravan::cpu {

void matmul_nt(const simd::SimdTable& table, const MatmulNtArgs& args);
void matmul_nn(const MatmulNnArgs& args);
void matmul_tn(const MatmulTnArgs& args);

/// OpenBLAS calls run in the calling thread from now on.
void use_one_blas_thread();

}  // namespace caravan::cpu
