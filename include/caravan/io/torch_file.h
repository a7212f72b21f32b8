// One file of torch.save: a ZIP archive (zip_reader.h) with a pickled dict of tensors (pickle.h) and one
// member of raw bytes per storage. docs: PyTorch, torch/serialization.py.
#pragma once

#include <string>
#include <vector>

#include "caravan/io/stored_tensor.h"
#include "caravan/io/tensor_source.h"

namespace caravan {

/// The tensors of a .pth file, in the order of its dict. Reads the directory and the pickle only. IoError for
/// the formats before PyTorch 1.6, TorchScript, big-endian files, and anything damaged or outside the subset.
std::vector<StoredTensor> read_torch_file(const std::string& path);

/// Writes a .pth file atomically, a few MiB at a time. `shared` names pairs (name, source name): the first is
/// written as a view of the second's storage.
struct SharedTensor {
  std::string name;
  std::string same_as;
};
void write_torch_file(const std::string& path, const std::vector<TensorSource>& sources,
                      const std::vector<SharedTensor>& shared);

}  // namespace caravan
