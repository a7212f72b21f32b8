#include "manifest_check.h"

#include <algorithm>
#include <set>

#include "box_tiling.h"
#include "caravan/core/error.h"
#include "caravan/core/excerpt.h"
#include "safetensors_header.h"

namespace caravan {
namespace {

constexpr std::int64_t kSmallestHeader = 8 + 2;  // the length, and {}

void check_tensor(const GlobalTensor& tensor, const std::string& where) {
  if (!is_plain_name(tensor.name)) {
    fail<IoError>("{}: a tensor has a name of {} bytes, or one with control characters: '{}'", where,
                  tensor.name.size(), excerpt(tensor.name));
  }
  checked_bytes(tensor, where);
}

/// Exactly what shard_file_name gives: no path can hide in it.
bool is_shard_name(const std::string& name) {
  constexpr std::string_view kHead = "shard_";
  constexpr std::string_view kTail = ".safetensors";
  if (!name.starts_with(kHead) || !name.ends_with(kTail) || name.size() <= kHead.size() + kTail.size()) {
    return false;
  }
  const std::string digits = name.substr(kHead.size(), name.size() - kHead.size() - kTail.size());
  return digits.size() <= 9 && digits.find_first_not_of("0123456789") == std::string::npos &&
         name == shard_file_name(std::stoll(digits));
}

void check_file(const ShardFile& file, const std::string& where) {
  if (!is_shard_name(file.name)) {
    fail<IoError>("{}: '{}' is no name of a shard, like shard_00000.safetensors", where, excerpt(file.name));
  }
  if (file.header_bytes < kSmallestHeader || file.bytes < file.header_bytes) {
    fail<IoError>("{}: {} has {} bytes with a header of {}", where, file.name, file.bytes, file.header_bytes);
  }
}

void check_piece(const CheckpointPiece& piece, const CheckpointTables& tables, const std::string& where) {
  const auto is_index = [](std::int64_t index, std::size_t count) {
    return index >= 0 && static_cast<std::uint64_t>(index) < count;
  };
  if (!is_index(piece.tensor, tables.tensors.size()) || !is_index(piece.file, tables.files.size())) {
    fail<IoError>("{}: a piece of tensor {} in file {} where there are {} tensors and {} files", where,
                  piece.tensor, piece.file, tables.tensors.size(), tables.files.size());
  }
  const GlobalTensor& tensor = tables.tensors[static_cast<std::size_t>(piece.tensor)];
  bool is_inside = piece.region.size() == static_cast<std::size_t>(tensor.shape.rank());
  for (std::size_t dim = 0; is_inside && dim < piece.region.size(); ++dim) {
    const Range& range = piece.region[dim];
    is_inside =
        0 <= range.begin && range.begin < range.end && range.end <= tensor.shape[static_cast<int>(dim)];
  }
  if (!is_inside) {
    fail<IoError>("{}: {} is no part of tensor '{}' of shape {}", where, region_text(piece.region),
                  tensor.name, tensor.shape.str());
  }
  const std::int64_t bytes =
      region_shape(piece.region).numel() * static_cast<std::int64_t>(dtype_bytes(tensor.dtype));
  if (piece.begin < 0 || piece.end < piece.begin || piece.end - piece.begin != bytes) {
    fail<IoError>("{}: {} of tensor '{}' has {} bytes and lies at {} to {}", where, region_text(piece.region),
                  tensor.name, bytes, piece.begin, piece.end);
  }
}

/// Header, pieces, end of file, without gaps: every byte of a shard has a checksum.
void check_files_are_full(const CheckpointTables& tables, const std::string& where) {
  std::vector<const CheckpointPiece*> by_place;
  by_place.reserve(tables.pieces.size());
  for (const CheckpointPiece& piece : tables.pieces) {
    by_place.push_back(&piece);
  }
  std::sort(by_place.begin(), by_place.end(), [](const CheckpointPiece* a, const CheckpointPiece* b) {
    return std::pair(a->file, a->begin) < std::pair(b->file, b->begin);
  });
  auto piece = by_place.begin();
  for (std::size_t i = 0; i < tables.files.size(); ++i) {
    const ShardFile& file = tables.files[i];
    std::int64_t reached = file.header_bytes;
    for (; piece != by_place.end() && (*piece)->file == static_cast<std::int64_t>(i); ++piece) {
      if ((*piece)->begin != reached) {
        fail<IoError>("{}: in {} a piece begins at byte {} where {} is expected", where, file.name,
                      (*piece)->begin, reached);
      }
      reached = (*piece)->end;
    }
    if (reached != file.bytes) {
      fail<IoError>("{}: the pieces in {} end at byte {} of {}", where, file.name, reached, file.bytes);
    }
  }
}

template <class Item>
void check_unique(const std::vector<Item>& items, const char* what, const std::string& where) {
  std::set<std::string_view> names;
  for (const Item& item : items) {
    if (!names.insert(item.name).second) {
      fail<IoError>("{}: {} '{}' is listed twice", where, what, item.name);
    }
  }
}

}  // namespace

std::string shard_file_name(std::int64_t rank) {
  return fmt::format("shard_{:05}.safetensors", rank);
}

std::int64_t checked_bytes(const GlobalTensor& tensor, const std::string& where) {
  auto bytes = static_cast<std::int64_t>(dtype_bytes(tensor.dtype));
  bool overflows = false;
  bool is_empty = false;
  for (int dim = 0; dim < tensor.shape.rank(); ++dim) {
    is_empty = is_empty || tensor.shape[dim] == 0;
    overflows =
        overflows || __builtin_mul_overflow(bytes, std::max<std::int64_t>(tensor.shape[dim], 1), &bytes);
  }
  if (overflows) {
    fail<IoError>("{}: tensor '{}' of shape {} is impossibly large", where, tensor.name, tensor.shape.str());
  }
  return is_empty ? 0 : bytes;
}

void check_tables(const CheckpointTables& tables, const std::string& where) {
  for (const GlobalTensor& tensor : tables.tensors) {
    check_tensor(tensor, where);
  }
  for (const ShardFile& file : tables.files) {
    check_file(file, where);
  }
  for (const CheckpointPiece& piece : tables.pieces) {
    check_piece(piece, tables, where);
  }
  check_unique(tables.tensors, "tensor", where);
  check_unique(tables.files, "file", where);
  check_files_are_full(tables, where);
}

void check_complete(const CheckpointTables& tables, const std::string& where) {
  std::vector<std::vector<const Region*>> boxes(tables.tensors.size());
  for (const CheckpointPiece& piece : tables.pieces) {
    boxes[static_cast<std::size_t>(piece.tensor)].push_back(&piece.region);
  }
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    const GlobalTensor& tensor = tables.tensors[i];
    if (const std::string problem = tiling_problem(tensor.shape, boxes[i]); !problem.empty()) {
      fail<IoError>("{}: tensor '{}' of shape {}: {}", where, tensor.name, tensor.shape.str(), problem);
    }
  }
}

}  // namespace caravan
