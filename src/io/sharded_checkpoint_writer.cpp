#include "caravan/io/sharded_checkpoint_writer.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <unordered_map>

#include "box_tiling.h"
#include "caravan/core/checksum.h"
#include "caravan/core/error.h"
#include "manifest_check.h"
#include "shard_header.h"

namespace caravan {
namespace {

// Small enough that a block is still in the cache when it is written after it was hashed.
constexpr std::int64_t kBlockBytes = std::int64_t{1} << 20U;

std::int64_t region_bytes(const ShardSource& source) {
  return region_shape(source.region).numel() * static_cast<std::int64_t>(dtype_bytes(source.tensor.dtype));
}

void check_source(const ShardSource& source) {
  const Shape& shape = source.tensor.shape;
  bool is_inside = source.region.size() == static_cast<std::size_t>(shape.rank());
  for (std::size_t dim = 0; is_inside && dim < source.region.size(); ++dim) {
    const Range& range = source.region[dim];
    is_inside = 0 <= range.begin && range.begin <= range.end && range.end <= shape[static_cast<int>(dim)];
  }
  CARAVAN_CHECK(is_inside, "{} of {} {} is to be written", region_text(source.region), source.tensor.name,
                shape.str());
  CARAVAN_CHECK(region_bytes(source) == 0 || source.data != nullptr || source.read,
                "{} has neither memory nor a function", source.tensor.name);
}

/// The region cut along dim 0 into pieces of at most `most` bytes.
std::vector<Region> cut_region(const ShardSource& source, std::int64_t most) {
  const std::int64_t bytes = region_bytes(source);
  if (bytes == 0) {
    return {};
  }
  if (source.region.empty()) {
    return {source.region};
  }
  const Range rows = source.region[0];
  const std::int64_t step = std::max<std::int64_t>(1, most / (bytes / rows.size()));
  std::vector<Region> cut;
  for (std::int64_t row = rows.begin; row < rows.end; row += step) {
    cut.push_back(source.region);
    cut.back()[0] = {row, std::min(row + step, rows.end)};
  }
  return cut;
}

}  // namespace

ShardedCheckpointWriter::ShardedCheckpointWriter(const ShardIdentity& identity,
                                                 std::vector<ShardSource> sources,
                                                 std::int64_t max_piece_bytes)
    : sources_(std::move(sources)) {
  CARAVAN_CHECK(parse_checksum(identity.id).has_value(), "'{}' as the id of a checkpoint", identity.id);
  // Larger elements first keep every piece aligned in the file.
  std::stable_sort(sources_.begin(), sources_.end(), [](const ShardSource& a, const ShardSource& b) {
    return dtype_bytes(a.tensor.dtype) > dtype_bytes(b.tensor.dtype);
  });
  std::unordered_map<std::string, std::int64_t> index_of;
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    const ShardSource& source = sources_[i];
    check_source(source);
    const auto [at, is_new] =
        index_of.emplace(source.tensor.name, static_cast<std::int64_t>(tables_.tensors.size()));
    if (is_new) {
      tables_.tensors.push_back(source.tensor);
    }
    CARAVAN_CHECK(tables_.tensors[static_cast<std::size_t>(at->second)] == source.tensor,
                  "{} is given with two shapes or dtypes", source.tensor.name);
    std::int64_t offset = 0;
    for (Region& region : cut_region(source, max_piece_bytes)) {
      const std::int64_t bytes =
          region_shape(region).numel() * static_cast<std::int64_t>(dtype_bytes(source.tensor.dtype));
      tables_.pieces.push_back({.tensor = at->second, .region = std::move(region)});
      source_of_.push_back(i);
      offset_of_.push_back(offset);
      offset += bytes;
    }
    bytes_ += offset;
  }
  header_ = shard_header(identity, tables_.tensors, tables_.pieces);
  if (!tables_.pieces.empty()) {
    tables_.files.push_back({.name = shard_file_name(identity.rank),
                             .bytes = tables_.pieces.back().end,
                             .header_bytes = static_cast<std::int64_t>(header_.size()),
                             .header_checksum = checksum_of(header_)});
  }
}

void ShardedCheckpointWriter::stage() {
  staged_ = std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(bytes_));
  std::byte* to = staged_.get();
  for (ShardSource& source : sources_) {
    const auto bytes = static_cast<std::size_t>(region_bytes(source));
    if (bytes > 0 && source.data != nullptr) {
      std::memcpy(to, source.data, bytes);
    } else if (bytes > 0) {
      source.read(0, {to, bytes});
    }
    source.data = to;
    source.read = nullptr;
    to += bytes;
  }
}

void ShardedCheckpointWriter::open(const std::string& folder) {
  if (!tables_.files.empty()) {
    file_ = std::make_unique<OutputFile>((std::filesystem::path(folder) / tables_.files[0].name).string());
  }
}

CheckpointTables ShardedCheckpointWriter::write() {
  CARAVAN_CHECK(file_ || tables_.files.empty(), "a shard is written before open");
  if (file_) {
    file_->write(header_);
    for (std::size_t i = 0; i < tables_.pieces.size(); ++i) {
      write_piece(tables_.pieces[i], sources_[source_of_[i]], offset_of_[i]);
    }
    file_->commit();
    file_.reset();
  }
  staged_.reset();
  return std::move(tables_);
}

void ShardedCheckpointWriter::write_piece(CheckpointPiece& piece, const ShardSource& source,
                                          std::int64_t offset) {
  CARAVAN_CHECK(file_->position() == piece.begin, "a piece at {} of {} is written at {}", piece.begin,
                file_->path(), file_->position());
  const std::int64_t bytes = piece.end - piece.begin;
  std::vector<std::byte> buffer;
  if (source.data == nullptr) {
    buffer.resize(static_cast<std::size_t>(std::min(bytes, kBlockBytes)));
  }
  Checksum checksum;
  for (std::int64_t done = 0; done < bytes;) {
    const auto size = static_cast<std::size_t>(std::min(bytes - done, kBlockBytes));
    std::span<const std::byte> block;
    if (source.data != nullptr) {
      block = {source.data + offset + done, size};
    } else {
      source.read(offset + done, std::span(buffer).first(size));
      block = std::span(buffer).first(size);
    }
    checksum.add(block);
    file_->write(block);
    done += static_cast<std::int64_t>(size);
  }
  piece.checksum = checksum.value();
}

}  // namespace caravan
