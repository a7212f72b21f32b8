// A training checkpoint, read region by region on any number of ranks, whatever layout wrote it. Nothing that
// is read goes unchecked: the checksum of every piece is compared before any part of it is used.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "caravan/core/tensor_view.h"
#include "caravan/io/checkpoint_manifest.h"
#include "caravan/io/input_file.h"

namespace caravan {

/// One part of a work that several ranks divide among them.
struct Share {
  std::int64_t index = 0;
  std::int64_t count = 1;
};

/// One thread at a time; every rank has its own. Every failure is an IoError that names file and reason.
class ShardedCheckpointReader {
 public:
  /// Reads the manifest only.
  explicit ShardedCheckpointReader(std::string folder);

  const std::string& folder() const { return folder_; }
  const TrainingState& state() const { return manifest_.state; }
  const CheckpointManifest& manifest() const { return manifest_; }
  /// Null when there is no such tensor.
  const GlobalTensor* find(const std::string& name) const;

  /// Reads the elements of `region` (global indices, one range per dim) into `destination`, a CPU view of the
  /// region's shape whose last dim has stride 1, converting to its dtype where both are floating. Files that
  /// hold none of it are not opened; a piece is read as a whole the first time, through at most 1 MiB, and
  /// afterwards only what is wanted of it. After a failure `destination` holds anything. IoError also for an
  /// unknown name; InternalError for a region outside the tensor.
  void read(const std::string& name, const Region& region, const TensorView& destination);

  /// Compares every checksum of this share of the checkpoint: about the same number of bytes for each. Does
  /// nothing twice, so read() later is not slowed.
  void verify(Share share = {});

  /// Closes the files; what is read later opens them again.
  void close_files() { open_files_.clear(); }

 private:
  const InputFile& open(std::int64_t file);
  void check_header(std::int64_t file);
  void check_piece(std::size_t piece);
  void read_directly(std::size_t piece, const TensorView& destination);
  void read_in_passing(std::size_t piece, const Region& wanted, const TensorView& destination);
  void compare(const CheckpointPiece& piece, std::uint64_t found) const;
  std::string file_path(std::int64_t file) const;

  std::string folder_;
  CheckpointManifest manifest_;
  std::unordered_map<std::string, std::size_t> by_name_;
  std::vector<std::vector<std::size_t>> pieces_of_;  // of each tensor
  std::vector<bool> is_header_checked_;              // of each file
  std::vector<bool> is_checked_;                     // of each piece
  std::unordered_map<std::int64_t, std::shared_ptr<const InputFile>> open_files_;
};

}  // namespace caravan
