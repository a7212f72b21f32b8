// The rules that the tables of a checkpoint obey, whoever wrote them.
#pragma once

#include <string>

#include "caravan/io/checkpoint_manifest.h"

namespace caravan {

/// "shard_00003.safetensors"
std::string shard_file_name(std::int64_t rank);

/// Bytes of all elements; throws IoError beginning with `where` when they are impossibly many.
std::int64_t checked_bytes(const GlobalTensor& tensor, const std::string& where);

/// Each table by itself and indices between them: names, shapes, regions inside their tensors, files filled
/// by their pieces without gaps. Throws IoError beginning with `where`.
void check_tables(const CheckpointTables& tables, const std::string& where);

/// Every element of every tensor in exactly one piece. After check_tables.
void check_complete(const CheckpointTables& tables, const std::string& where);

}  // namespace caravan
