#pragma once

#include <vector>

#include "caravan/io/stored_tensor.h"

namespace caravan::fuzz {

/// Reads every tensor as float32 and in its own type, whole and in part; those above a million elements,
/// which the program takes memory for only when the model has that size, by their first and last element.
void read_all(const std::vector<StoredTensor>& tensors);

}  // namespace caravan::fuzz
