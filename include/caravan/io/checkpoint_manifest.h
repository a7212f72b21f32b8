// The table of contents of a training checkpoint: which global tensors there are, in which file every region
// of them lies, and the numbers that training needs to go on. It does not depend on the layout of the ranks
// that wrote it: any number of ranks reads any regions. docs/notes/training-checkpoints.md has the format.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "caravan/core/dtype.h"
#include "caravan/core/shape.h"
#include "caravan/core/shard_spec.h"

namespace caravan {

inline constexpr const char* kManifestName = "manifest.json";

struct GlobalTensor {
  std::string
      name;  // Meta's for parameters; "optimizer.exp_avg.<name>" and the like for what belongs to them
  Shape shape;
  DType dtype = DType::kFloat32;

  friend bool operator==(const GlobalTensor&, const GlobalTensor&) = default;
};

/// What a shard says of itself, so that files of two checkpoints do not mix.
struct ShardIdentity {
  std::string id;  // 16 hexadecimal digits, the same on all ranks and different in every write
  std::int64_t step = 0;
  std::int64_t rank = 0;

  friend bool operator==(const ShardIdentity&, const ShardIdentity&) = default;
};

/// One file, in safetensors layout: a header, then pieces without gaps.
struct ShardFile {
  std::string name;                   // "shard_00003.safetensors"
  std::int64_t bytes = 0;             // of the whole file
  std::int64_t header_bytes = 0;      // where the first piece begins
  std::uint64_t header_checksum = 0;  // of the bytes before it

  friend bool operator==(const ShardFile&, const ShardFile&) = default;
};

/// A rectangular part of a tensor, contiguous and row-major in its file. Never empty.
struct CheckpointPiece {
  std::int64_t tensor = 0;  // index into tensors
  std::int64_t file = 0;    // index into files
  Region region = {};
  std::int64_t begin = 0;  // bytes in the file
  std::int64_t end = 0;
  std::uint64_t checksum = 0;

  friend bool operator==(const CheckpointPiece&, const CheckpointPiece&) = default;
};

/// What lies where. A rank reports its own file like this; a manifest holds all of them.
struct CheckpointTables {
  std::vector<GlobalTensor> tensors;
  std::vector<ShardFile> files;
  std::vector<CheckpointPiece> pieces;

  friend bool operator==(const CheckpointTables&, const CheckpointTables&) = default;
};

/// Everything training needs besides tensors. Ranks and mesh are for information only.
struct TrainingState {
  std::int64_t step = 0;            // finished steps
  std::int64_t optimizer_step = 0;  // updates made, for bias corrections
  std::int64_t data_position = 0;   // samples consumed since the start of training, all ranks together
  std::int64_t step_records = 0;    // rows of /steps in results.h5 at this point
  std::int64_t history_records = 0;
  std::int64_t seed = 0;
  std::string random_state;  // opaque, UTF-8; empty where seed and step say everything
  std::string config;        // the effective configuration, YAML
  std::string commit;
  std::int64_t ranks = 1;
  std::string mesh;                          // "dp_replicate 2, tp 4"
  std::map<std::string, std::string> extra;  // what else a trainer keeps, UTF-8

  friend bool operator==(const TrainingState&, const TrainingState&) = default;
};

struct CheckpointManifest {
  std::string id;  // as in every shard's ShardIdentity
  TrainingState state;
  CheckpointTables tables;

  friend bool operator==(const CheckpointManifest&, const CheckpointManifest&) = default;
};

/// One manifest of what the ranks report. InternalError when two ranks disagree on a tensor's shape or dtype,
/// or when the pieces do not hold every element of every tensor exactly once.
CheckpointManifest merge_tables(std::string id, TrainingState state,
                                const std::vector<CheckpointTables>& reports);

/// The tables as text, for sending them to the rank that writes the manifest, and back.
std::string tables_text(const CheckpointTables& tables);
CheckpointTables parse_tables(const std::string& text, const std::string& source);

/// The content of manifest.json; it begins with the checksum of the rest. InternalError when it would be
/// larger than a reader takes.
std::string manifest_text(const CheckpointManifest& manifest);
/// `path` begins every message. IoError for anything but a manifest of ours: another version, a wrong
/// checksum, pieces outside their file or tensor, bytes or elements that belong to no piece or to two.
CheckpointManifest parse_manifest(const std::string& text, const std::string& path);

/// Writes `<folder>/manifest.json` atomically, which makes the folder a checkpoint.
void write_manifest(const std::string& folder, const CheckpointManifest& manifest);
CheckpointManifest read_manifest(const std::string& folder);
/// True when `folder` holds a manifest.json.
bool has_manifest(const std::string& folder);

}  // namespace caravan
