// The JSON header of a safetensors file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/core/dtype.h"

namespace caravan {

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> shape;
  std::int64_t begin = 0;  // bytes from the start of the data
  std::int64_t end = 0;
};

/// Null for a dtype Caravan has no storage for (8-bit floats and below, unsigned integers beyond 8 bits).
std::optional<DType> safetensors_dtype(std::string_view name);
std::string_view safetensors_dtype_name(DType dtype);

/// Exactly the shape {"__metadata__": {str: str}?, name: {"dtype", "shape", "data_offsets"}}; in the order of
/// the text. `path` begins every message. Sizes are not compared with each other here.
std::vector<SafetensorsEntry> parse_safetensors_header(std::string_view text, const std::string& path);

}  // namespace caravan
