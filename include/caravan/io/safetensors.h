// safetensors files: a JSON header with every tensor's dtype, shape and place, then the bytes. Format:
// huggingface/safetensors, README "Format"; every check of the reference implementation is made before any
// data is looked at, and duplicate names are refused as well.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "caravan/io/stored_tensor.h"
#include "caravan/io/tensor_source.h"

namespace caravan {

/// The tensors of one file, in the order of their bytes. IoError for a malformed file or an unsupported
/// dtype.
std::vector<StoredTensor> read_safetensors(const std::string& path);

/// The tensors of all files an index (model.safetensors.index.json) names; they lie in its folder. IoError
/// when the index and the files do not agree in every name.
std::vector<StoredTensor> read_sharded_safetensors(const std::string& index_path);

/// Writes one file atomically: tensors by element size, largest first, then by name.
void write_safetensors(const std::string& path, std::vector<TensorSource> sources);

/// Writes `folder`/model.safetensors, or, when the tensors have more than `shard_limit_bytes`, numbered
/// shards filled in the order given (a larger tensor gets a shard of its own) and their index.
void write_sharded_safetensors(const std::string& folder, const std::vector<TensorSource>& sources,
                               std::int64_t shard_limit_bytes);

}  // namespace caravan
