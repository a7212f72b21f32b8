// A model that one step of the emulated device takes no time for, and its batches.
#pragma once

#include "support/mesh_runs.h"

namespace caravan::test {

/// Two query heads of 16 and one of keys and values, 67 tokens.
inline ModelConfig small_model(int n_layers = 2) {
  ModelConfig model = mesh_model(false, n_layers);
  model.vocab_size = 67;
  model.hidden_size = 32;
  model.n_heads = 2;
  model.n_kv_heads = 1;
  model.head_dim = 16;
  model.intermediate_size = 40;
  return model;
}

/// Rows of `longest` tokens each, so that every batch has one shape.
inline Batch full_batch(std::int64_t number, std::int64_t rows, std::int64_t longest) {
  std::vector<TokenRow> made;
  const CounterRng rng(11, static_cast<std::uint64_t>(number));
  for (std::int64_t row = 0; row < rows; ++row) {
    std::vector<std::int32_t> ids;
    for (std::int64_t i = 0; i <= longest; ++i) {
      ids.push_back(static_cast<std::int32_t>(rng.uniform(static_cast<std::uint64_t>(row * 100 + i)) * 67));
    }
    made.emplace_back().append_document(ids);
  }
  return make_batch(made, 0);
}

}  // namespace caravan::test
