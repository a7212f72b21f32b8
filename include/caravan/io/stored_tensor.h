// A tensor as it lies in a file, whatever the file's kind: where its first element is, and its strides.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "caravan/core/dtype.h"
#include "caravan/core/shard_spec.h"
#include "caravan/core/tensor_view.h"
#include "caravan/io/input_file.h"

namespace caravan {

/// Made by the file readers only after checking that every element lies inside the file. Files may hold more
/// dims than Shape does, hence vectors.
struct StoredTensor {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;  // in elements, not negative
  std::int64_t offset_bytes = 0;      // of the first element in the file
  std::shared_ptr<const InputFile> file;

  /// IoError when the tensor has more dims than Caravan handles.
  Shape checked_shape() const;
};

/// Of a row-major tensor, in elements; dims of size 0 count as 1.
std::vector<std::int64_t> contiguous_strides(const std::vector<std::int64_t>& shape);

/// True when both are the same elements of the same file.
bool is_same_memory(const StoredTensor& a, const StoredTensor& b);

/// Where a region goes: element (i, j, ...) of it to `data` + i·strides[0] + j·strides[1] + ... elements.
struct StridedMemory {
  std::byte* data = nullptr;
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> strides;  // the last is 1 unless the region has one index there
};

/// As read_region, for any number of dims.
void read_strided(const StoredTensor& tensor, const Region& region, const StridedMemory& destination);

/// Reads the elements of `region` (global indices of this tensor) into `destination`, a CPU view of the
/// region's shape whose last dim has stride 1, converting the element type. Stages at most 4 MiB; a tensor
/// whose last dim is not contiguous in the file at most that tensor. IoError when the types do not convert.
void read_region(const StoredTensor& tensor, const Region& region, const TensorView& destination);

}  // namespace caravan
