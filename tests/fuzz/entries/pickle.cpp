#include "caravan/io/pickle.h"

#include <algorithm>

#include "fuzz/fuzz_entries.h"

namespace caravan::fuzz {
namespace {

/// The promise of parse_tensor_dict, computed in 128 bits where nothing overflows.
bool is_inside_storage(const PickledTensor& tensor) {
  if (tensor.shape.size() != tensor.strides.size() || tensor.storage_offset < 0) {
    return false;
  }
  __extension__ __int128 last = tensor.storage_offset;
  for (std::size_t dim = 0; dim < tensor.shape.size(); ++dim) {
    if (tensor.shape[dim] < 0 || tensor.strides[dim] < 0) {
      return false;
    }
    if (tensor.shape[dim] == 0) {
      return true;
    }
    last += static_cast<__int128>(tensor.shape[dim] - 1) * tensor.strides[dim];
  }
  return last < tensor.storage_numel;
}

bool is_contiguous(const PickledTensor& tensor) {
  std::int64_t stride = 1;
  for (std::size_t dim = tensor.shape.size(); dim-- > 0;) {
    if (tensor.strides[dim] != stride) {
      return false;
    }
    stride *= std::max<std::int64_t>(tensor.shape[dim], 1);
  }
  return tensor.storage_offset == 0;
}

}  // namespace

void pickle(Bytes input) {
  std::vector<PickledTensor> tensors;
  if (!accepted([&] { tensors = parse_tensor_dict(input, "input"); })) {
    return;
  }
  for (const PickledTensor& tensor : tensors) {
    require(is_inside_storage(tensor), "every element of a tensor lies inside its storage");
  }
  if (!std::all_of(tensors.begin(), tensors.end(), is_contiguous)) {
    return;
  }
  const std::string written = write_tensor_dict(tensors);
  const auto again = parse_tensor_dict(std::as_bytes(std::span(written)), "written");
  const bool is_same = std::equal(
      tensors.begin(), tensors.end(), again.begin(), again.end(), [](const auto& one, const auto& two) {
        return one.name == two.name && one.storage_key == two.storage_key && one.dtype == two.dtype &&
               one.storage_numel == two.storage_numel && one.shape == two.shape && one.strides == two.strides;
      });
  require(is_same, "the reader reads what the writer makes of its result");
}

}  // namespace caravan::fuzz
