// What the context-parallel attention cores share: which token of a row is where, and rows put in another
// order. The attention op wants keys in the order of their index; how tokens are divided over ranks is the
// loader's business.
#pragma once

#include <cstdint>
#include <vector>

#include "caravan/backend/context.h"
#include "caravan/comm/communicator.h"
#include "caravan/model/token_batch.h"

namespace caravan {

/// int32 elements of a view in host memory; none of a view without memory (planning on shapes).
std::vector<std::int32_t> host_numbers(const TensorView& view);
/// [values] int32 in scratch.
TensorView to_scratch(const Context& ctx, const char* what, const std::vector<std::int32_t>& values);

/// For each row of `index` [rows · length] its places in the order of their index, equal ones as they stand.
std::vector<std::int32_t> sorted_places(const std::vector<std::int32_t>& index, std::int64_t rows,
                                        std::int64_t length);
/// True when every row's index does not decrease.
bool is_in_order(const std::vector<std::int32_t>& index, std::int64_t rows, std::int64_t length);

/// One rank with its tokens in order: there is nothing to exchange or sort.
bool is_alone(const Communicator& cp, const TokenBatch& batch);

/// to[i] = from[ids[i]], rows of equal length. `ids` [rows of `to`] int32.
void take_rows(const Context& ctx, const TensorView& from, const TensorView& ids, const TensorView& to);

}  // namespace caravan
