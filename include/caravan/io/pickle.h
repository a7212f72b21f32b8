// The subset of Python's pickle that torch.save uses for a flat dict of tensors, read by an interpreter of
// its own that knows only plain values: nothing in the file is ever imported or called. Whatever is outside
// the subset is refused with the opcode or name and its byte offset. The writer makes what the reader
// accepts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "caravan/core/dtype.h"

namespace caravan {

/// One tensor of the dict. Offset and strides are in elements of the storage; all of the tensor's elements
/// lie inside `storage_numel`, which the caller compares with the real storage.
struct PickledTensor {
  std::string name;
  std::string storage_key;  // digits; names the archive member data/<key>
  DType dtype = DType::kFloat32;
  std::int64_t storage_numel = 0;
  std::int64_t storage_offset = 0;
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;
};

/// In the order of the dict. `where` begins every message. IoError for everything outside the subset:
/// protocol 2, the opcodes and globals of a tensor dict, at most 64 MiB, strings up to 1 MiB, a million stack
/// and memo entries, unique names.
std::vector<PickledTensor> parse_tensor_dict(std::span<const std::byte> pickle, const std::string& where);

/// Protocol 2, contiguous tensors; loads with torch.load(weights_only=True).
std::string write_tensor_dict(const std::vector<PickledTensor>& tensors);

}  // namespace caravan
