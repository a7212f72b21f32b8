// A batch of token rows as the model sees it: views on the backend's device, T = batch · seq_len tokens.
#pragma once

#include <memory>

#include "caravan/backend/op_args.h"

namespace caravan {

struct ContextKeys;

struct TokenBatch {
  std::int64_t batch = 0;              // B
  std::int64_t seq_len = 0;            // S
  TensorView ids;                      // [T] int32
  TensorView targets;                  // [T] int32; undefined when there is no loss
  TensorView target_weights;           // [T] float32; undefined with targets
  TensorView index;                    // [T] int32, the token's global place in its row
  TensorView document_start;           // [T] int32, the place in the row where its document begins
  TensorView positions;                // [T] int32, index − document_start: the rotary position
  std::int64_t first_index = 0;        // index of token 0, for the host
  MaskKind mask = MaskKind::kGeneral;  // of the tokens among themselves
  TensorView rows = {};  // [T] int32, the token's row in the step's whole batch; undefined: no dropout
  // Of rows that are divided over ranks, what attention has to know of all their keys
  // (parallel/context_keys.h); else null. Its views are valid as long as those above.
  std::shared_ptr<const ContextKeys> context = {};

  std::int64_t n_tokens() const { return batch * seq_len; }
};

}  // namespace caravan
