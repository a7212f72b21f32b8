#include "caravan/io/sharded_checkpoint_reader.h"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <numeric>
#include <optional>
#include <span>
#include <system_error>

#include "box_tiling.h"
#include "caravan/core/checksum.h"
#include "caravan/core/error.h"
#include "caravan/io/convert_dtype.h"
#include "caravan/io/stored_tensor.h"
#include "shard_header.h"

namespace caravan {
namespace {

constexpr std::int64_t kBlockBytes = std::int64_t{1} << 20U;
constexpr std::size_t kMaxOpenFiles = 64;

/// What both have in common; null when that is nothing.
std::optional<Region> intersection(const Region& a, const Region& b) {
  Region common(a.size());
  for (std::size_t dim = 0; dim < a.size(); ++dim) {
    common[dim] = {std::max(a[dim].begin, b[dim].begin), std::min(a[dim].end, b[dim].end)};
    if (common[dim].begin >= common[dim].end) {
      return std::nullopt;
    }
  }
  return common;
}

/// `inner` counted from where `outer` begins.
Region relative(const Region& inner, const Region& outer) {
  Region shifted = inner;
  for (std::size_t dim = 0; dim < inner.size(); ++dim) {
    shifted[dim].begin -= outer[dim].begin;
    shifted[dim].end -= outer[dim].begin;
  }
  return shifted;
}

TensorView part_of_view(TensorView view, const Region& region) {
  for (std::size_t dim = 0; dim < region.size(); ++dim) {
    view = view.slice(static_cast<int>(dim), region[dim].begin, region[dim].end);
  }
  return view;
}

StoredTensor stored(const GlobalTensor& tensor, const CheckpointPiece& piece,
                    std::shared_ptr<const InputFile> file) {
  StoredTensor result;
  result.name = tensor.name;
  result.dtype = tensor.dtype;
  for (const Range& range : piece.region) {
    result.shape.push_back(range.size());
  }
  result.strides.assign(result.shape.size(), 1);
  for (std::size_t dim = result.shape.size(); dim-- > 1;) {
    result.strides[dim - 1] = result.strides[dim] * result.shape[dim];
  }
  result.offset_bytes = piece.begin;
  result.file = std::move(file);
  return result;
}

/// Copies what `wanted` has of a block of whole rows (along the last dim) of a piece.
class RowCopier {
 public:
  RowCopier(const Region& piece, const Region& wanted, DType dtype, const TensorView& destination)
      : piece_(piece), wanted_(wanted), dtype_(dtype), destination_(destination) {}

  void copy(std::int64_t first_row, std::span<const std::byte> block) const {
    const std::size_t last = piece_.size() - 1;
    const auto item = static_cast<std::int64_t>(dtype_bytes(dtype_));
    const std::int64_t row_bytes = piece_[last].size() * item;
    const std::byte* source = block.data() + (wanted_[last].begin - piece_[last].begin) * item;
    const auto rows = static_cast<std::int64_t>(block.size()) / row_bytes;
    for (std::int64_t row = first_row; row < first_row + rows; ++row, source += row_bytes) {
      if (std::byte* to = place_of(row)) {
        convert_elements(source, dtype_, to, destination_.dtype(), wanted_[last].size());
      }
    }
  }

 private:
  /// Where a row begins in the destination; null for one that is not wanted.
  std::byte* place_of(std::int64_t row) const {
    std::int64_t offset = 0;
    for (std::size_t dim = piece_.size() - 1; dim-- > 0;) {
      const std::int64_t index = piece_[dim].begin + row % piece_[dim].size();
      row /= piece_[dim].size();
      if (index < wanted_[dim].begin || index >= wanted_[dim].end) {
        return nullptr;
      }
      offset += (index - wanted_[dim].begin) * destination_.stride(static_cast<int>(dim));
    }
    return static_cast<std::byte*>(destination_.raw()) +
           offset * static_cast<std::int64_t>(dtype_bytes(destination_.dtype()));
  }

  const Region& piece_;
  const Region& wanted_;
  DType dtype_;
  const TensorView& destination_;
};

bool has_short_rows(const CheckpointPiece& piece, DType dtype) {
  return !piece.region.empty() &&
         piece.region.back().size() <= kBlockBytes / static_cast<std::int64_t>(dtype_bytes(dtype));
}

/// The checksum of bytes [begin, end) of a file.
std::uint64_t checksum_of_range(const InputFile& file, std::int64_t begin, std::int64_t end) {
  std::vector<std::byte> buffer(static_cast<std::size_t>(std::min(end - begin, kBlockBytes)));
  Checksum checksum;
  for (std::int64_t at = begin; at < end;) {
    const auto block = std::span(buffer).first(static_cast<std::size_t>(std::min(end - at, kBlockBytes)));
    file.read_at(at, block);
    checksum.add(block);
    at += static_cast<std::int64_t>(block.size());
  }
  return checksum.value();
}

}  // namespace

ShardedCheckpointReader::ShardedCheckpointReader(std::string folder)
    : folder_(std::move(folder)), manifest_(read_manifest(folder_)) {
  const CheckpointTables& tables = manifest_.tables;
  for (std::size_t i = 0; i < tables.tensors.size(); ++i) {
    by_name_.emplace(tables.tensors[i].name, i);
  }
  pieces_of_.resize(tables.tensors.size());
  for (std::size_t i = 0; i < tables.pieces.size(); ++i) {
    pieces_of_[static_cast<std::size_t>(tables.pieces[i].tensor)].push_back(i);
  }
  is_header_checked_.resize(tables.files.size(), false);
  is_checked_.resize(tables.pieces.size(), false);
}

const GlobalTensor* ShardedCheckpointReader::find(const std::string& name) const {
  const auto at = by_name_.find(name);
  return at == by_name_.end() ? nullptr : &manifest_.tables.tensors[at->second];
}

void ShardedCheckpointReader::read(const std::string& name, const Region& region,
                                   const TensorView& destination) {
  const GlobalTensor* tensor = find(name);
  if (tensor == nullptr) {
    fail<IoError>("{}: holds no tensor '{}'", folder_, name);
  }
  const Region whole = full_region(tensor->shape);
  bool is_inside = region.size() == whole.size() && destination.shape() == region_shape(region);
  for (std::size_t dim = 0; is_inside && dim < region.size(); ++dim) {
    is_inside =
        0 <= region[dim].begin && region[dim].begin <= region[dim].end && region[dim].end <= whole[dim].end;
  }
  CARAVAN_CHECK(is_inside, "{} of {} {} into {}", region_text(region), name, tensor->shape.str(),
                destination.str());
  if (!can_convert(tensor->dtype, destination.dtype())) {
    fail<IoError>("{}: tensor '{}' is {} and cannot be read as {}", folder_, name, dtype_name(tensor->dtype),
                  dtype_name(destination.dtype()));
  }
  for (const std::size_t index : pieces_of_[by_name_.at(name)]) {
    const CheckpointPiece& piece = manifest_.tables.pieces[index];
    const std::optional<Region> wanted = intersection(region, piece.region);
    if (!wanted) {
      continue;
    }
    const TensorView part = part_of_view(destination, relative(*wanted, region));
    const bool is_whole = *wanted == piece.region && destination.dtype() == tensor->dtype;
    if (is_whole && !is_checked_[index] && part.is_contiguous()) {
      read_directly(index, part);
    } else if (!is_checked_[index] && has_short_rows(piece, tensor->dtype)) {
      read_in_passing(index, *wanted, part);
    } else {
      check_piece(index);
      open(piece.file);
      read_region(stored(*tensor, piece, open_files_.at(piece.file)), relative(*wanted, piece.region), part);
    }
  }
}

void ShardedCheckpointReader::verify(Share share) {
  CARAVAN_CHECK(0 <= share.index && share.index < share.count, "share {} of {}", share.index, share.count);
  const CheckpointTables& tables = manifest_.tables;
  for (std::int64_t file = share.index; file < static_cast<std::int64_t>(tables.files.size());
       file += share.count) {
    check_header(file);
  }
  std::vector<std::size_t> order(tables.pieces.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::pair(tables.pieces[a].file, tables.pieces[a].begin) <
           std::pair(tables.pieces[b].file, tables.pieces[b].begin);
  });
  double total = 0;
  for (const CheckpointPiece& piece : tables.pieces) {
    total += static_cast<double>(piece.end - piece.begin);
  }
  double before = 0;
  for (const std::size_t index : order) {
    const CheckpointPiece& piece = tables.pieces[index];
    const auto owner = static_cast<std::int64_t>(before / total * static_cast<double>(share.count));
    if (std::min(owner, share.count - 1) == share.index) {
      check_piece(index);
    }
    before += static_cast<double>(piece.end - piece.begin);
  }
}

std::string ShardedCheckpointReader::file_path(std::int64_t file) const {
  return (std::filesystem::path(folder_) / manifest_.tables.files[static_cast<std::size_t>(file)].name)
      .string();
}

const InputFile& ShardedCheckpointReader::open(std::int64_t file) {
  const auto at = open_files_.find(file);
  if (at != open_files_.end()) {
    return *at->second;
  }
  if (open_files_.size() >= kMaxOpenFiles) {
    open_files_.clear();
  }
  return *open_files_.emplace(file, std::make_shared<const InputFile>(file_path(file))).first->second;
}

/// Size, identity and header of a file, once.
void ShardedCheckpointReader::check_header(std::int64_t file) {
  if (is_header_checked_[static_cast<std::size_t>(file)]) {
    return;
  }
  const ShardFile& listed = manifest_.tables.files[static_cast<std::size_t>(file)];
  const InputFile& input = open(file);
  const std::optional<ShardIdentity> identity = shard_identity(input);
  if (identity && (identity->id != manifest_.id || identity->step != manifest_.state.step)) {
    fail<IoError>(
        "{}: belongs to another checkpoint (step {}, write {}) than the manifest beside it (step {}, write "
        "{})",
        input.path(), identity->step, identity->id, manifest_.state.step, manifest_.id);
  }
  if (input.size() != listed.bytes) {
    fail<IoError>("{}: has {} bytes where the manifest says {}; it is cut short or damaged", input.path(),
                  input.size(), listed.bytes);
  }
  if (!identity || checksum_of_range(input, 0, listed.header_bytes) != listed.header_checksum) {
    fail<IoError>("{}: the header ({} bytes) is damaged: its checksum is wrong", input.path(),
                  listed.header_bytes);
  }
  is_header_checked_[static_cast<std::size_t>(file)] = true;
}

void ShardedCheckpointReader::check_piece(std::size_t piece) {
  if (is_checked_[piece]) {
    return;
  }
  const CheckpointPiece& listed = manifest_.tables.pieces[piece];
  check_header(listed.file);
  compare(listed, checksum_of_range(open(listed.file), listed.begin, listed.end));
  is_checked_[piece] = true;
}

/// The whole piece to where it belongs, hashed on the way.
void ShardedCheckpointReader::read_directly(std::size_t piece, const TensorView& destination) {
  const CheckpointPiece& listed = manifest_.tables.pieces[piece];
  check_header(listed.file);
  const InputFile& input = open(listed.file);
  const std::span<std::byte> all(static_cast<std::byte*>(destination.raw()),
                                 static_cast<std::size_t>(listed.end - listed.begin));
  Checksum checksum;
  for (std::size_t at = 0; at < all.size();) {
    const auto block = all.subspan(at, std::min(all.size() - at, static_cast<std::size_t>(kBlockBytes)));
    input.read_at(listed.begin + static_cast<std::int64_t>(at), block);
    checksum.add(block);
    at += block.size();
  }
  compare(listed, checksum.value());
  is_checked_[piece] = true;
}

/// Reads and hashes the whole piece and keeps what is wanted of it.
void ShardedCheckpointReader::read_in_passing(std::size_t piece, const Region& wanted,
                                              const TensorView& destination) {
  const CheckpointPiece& listed = manifest_.tables.pieces[piece];
  const DType dtype = manifest_.tables.tensors[static_cast<std::size_t>(listed.tensor)].dtype;
  check_header(listed.file);
  const InputFile& input = open(listed.file);
  const std::int64_t row_bytes = listed.region.back().size() * static_cast<std::int64_t>(dtype_bytes(dtype));
  const std::int64_t rows = (listed.end - listed.begin) / row_bytes;
  const std::int64_t block_rows = std::min(rows, kBlockBytes / row_bytes);
  std::vector<std::byte> buffer(static_cast<std::size_t>(block_rows * row_bytes));
  const RowCopier copier(listed.region, wanted, dtype, destination);
  Checksum checksum;
  for (std::int64_t row = 0; row < rows; row += block_rows) {
    const auto block =
        std::span(buffer).first(static_cast<std::size_t>(std::min(block_rows, rows - row) * row_bytes));
    input.read_at(listed.begin + row * row_bytes, block);
    checksum.add(block);
    copier.copy(row, block);
  }
  compare(listed, checksum.value());
  is_checked_[piece] = true;
}

void ShardedCheckpointReader::compare(const CheckpointPiece& piece, std::uint64_t found) const {
  if (found != piece.checksum) {
    const GlobalTensor& tensor = manifest_.tables.tensors[static_cast<std::size_t>(piece.tensor)];
    fail<IoError>("{}: bytes {} to {} ({} of tensor '{}') are damaged: their checksum is {}, not {}",
                  file_path(piece.file), piece.begin, piece.end, region_text(piece.region), tensor.name,
                  checksum_text(found), checksum_text(piece.checksum));
  }
}

}  // namespace caravan
