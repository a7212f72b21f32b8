// The head of a shard file: safetensors, with metadata that say which checkpoint the shard belongs to.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "caravan/io/checkpoint_manifest.h"
#include "caravan/io/input_file.h"

namespace caravan {

/// Length, metadata and entries, padded to a multiple of 8 bytes; also puts begin and end of every piece,
/// which lie in the file in the order given.
std::string shard_header(const ShardIdentity& identity, const std::vector<GlobalTensor>& tensors,
                         std::vector<CheckpointPiece>& pieces);

/// What the file says of itself; null when it does not begin as a shard does. Looks at its first bytes only.
std::optional<ShardIdentity> shard_identity(const InputFile& file);

}  // namespace caravan
