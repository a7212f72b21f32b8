// A model of two layers that one step of the emulated device takes no time for.
#pragma once

#include "support/mesh_runs.h"

namespace caravan::test {

/// Two query heads of 16 and one of keys and values, 67 tokens.
inline ModelConfig small_model() {
  ModelConfig model = mesh_model(false);
  model.vocab_size = 67;
  model.hidden_size = 32;
  model.n_heads = 2;
  model.n_kv_heads = 1;
  model.head_dim = 16;
  model.intermediate_size = 40;
  return model;
}

}  // namespace caravan::test
