// One rank's part of a training checkpoint: the regions it owns, in one file. Knows nothing of other ranks;
// train/checkpointing.h is the collective way to a whole checkpoint.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "caravan/io/checkpoint_manifest.h"
#include "caravan/io/output_file.h"

namespace caravan {

/// A region of a global tensor that one rank holds and writes.
struct ShardSource {
  GlobalTensor tensor;
  Region region;  // may be empty: then nothing is written
  /// The region's elements, contiguous and row-major; must stay until written or staged. Null: `read`.
  const std::byte* data = nullptr;
  /// Copies bytes of the same content, from `offset` on, to `destination`. Called with rising, gapless
  /// offsets.
  std::function<void(std::int64_t offset, std::span<std::byte> destination)> read;
};

class ShardedCheckpointWriter {
 public:
  /// Pieces are at most this large (or one row): what a reader checks as a whole, wanting a part of it.
  static constexpr std::int64_t kMaxPieceBytes = std::int64_t{64} << 20U;

  /// InternalError for a region outside its tensor. That no element is written twice is seen when the ranks'
  /// tables are merged.
  ShardedCheckpointWriter(const ShardIdentity& identity, std::vector<ShardSource> sources,
                          std::int64_t max_piece_bytes = kMaxPieceBytes);

  /// Of all regions together.
  std::int64_t bytes() const { return bytes_; }

  /// Copies all contents to memory of its own; the sources are not looked at afterwards.
  void stage();
  /// Creates the file in `folder`; nothing when no source has an element. IoError.
  void open(const std::string& folder);
  /// Writes everything, flushes it to the disk and says what lies where. Once, after open; may run in another
  /// thread than the calls before it. IoError; the file goes with the writer then.
  CheckpointTables write();

 private:
  void write_piece(CheckpointPiece& piece, const ShardSource& source, std::int64_t offset);

  CheckpointTables tables_;
  std::vector<ShardSource> sources_;     // one per tensor
  std::vector<std::size_t> source_of_;   // of each piece
  std::vector<std::int64_t> offset_of_;  // of each piece in its source's bytes
  std::string header_;
  std::int64_t bytes_ = 0;
  std::unique_ptr<std::byte[]> staged_;
  std::unique_ptr<OutputFile> file_;
};

}  // namespace caravan
