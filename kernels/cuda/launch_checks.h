// What launchers check on the host. The messages are made in a .cpp file: nvcc does not compile fmt.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "caravan/core/tensor_view.h"

namespace caravan::cuda {

/// Throw InternalError: the caller broke a contract of launchers.h.
void check_float32(const TensorView& view);
/// Elements of 4 bytes.
void check_word(const TensorView& view);
void check_workspace(const char* op, std::int64_t bytes, std::int64_t needed);
void check_rounding(const TensorView& param, bool has_master, bool is_stochastic);
void check_contiguous(const char* op, std::initializer_list<const TensorView*> views);
void check_head_dim(std::int64_t head_dim, const char* supported, bool is_supported);

}  // namespace caravan::cuda
