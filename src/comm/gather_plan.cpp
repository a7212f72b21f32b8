#include "gather_plan.h"

#include <algorithm>
#include <utility>

#include "caravan/core/narrow.h"

namespace caravan::detail {
namespace {

struct Piece {
  std::uintptr_t address = 0;
  std::int64_t count = 0;
  std::size_t rank = 0;
};

/// The parts in pieces of at most `max_count` elements, sorted by address.
std::vector<Piece> cut_pieces(std::span<const TensorView> parts, int root, std::int64_t max_count) {
  std::vector<Piece> pieces;
  for (std::size_t r = 0; r < parts.size(); ++r) {
    if (std::cmp_equal(r, root)) {
      continue;
    }
    const auto begin = reinterpret_cast<std::uintptr_t>(parts[r].raw());
    const std::uintptr_t element = dtype_bytes(parts[r].dtype());
    const std::int64_t numel = parts[r].numel();
    for (std::int64_t at = 0; at < numel; at += max_count) {
      pieces.push_back(
          {begin + static_cast<std::uintptr_t>(at) * element, std::min(max_count, numel - at), r});
    }
  }
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const Piece& a, const Piece& b) { return a.address < b.address; });
  return pieces;
}

}  // namespace

std::vector<GatherCall> plan_gather_calls(std::span<const TensorView> parts, int root,
                                          std::int64_t max_count) {
  std::vector<GatherCall> calls;
  std::uintptr_t base = 0;
  std::uintptr_t end = 0;  // behind the last piece of the current call
  for (const Piece& piece : cut_pieces(parts, root, max_count)) {
    const std::uintptr_t element = dtype_bytes(parts[piece.rank].dtype());
    const std::uintptr_t distance = piece.address - base;
    const bool fits = !calls.empty() && calls.back().counts[piece.rank] == 0 && piece.address >= end &&
                      distance % element == 0 &&
                      distance / element + static_cast<std::uintptr_t>(piece.count) <=
                          static_cast<std::uintptr_t>(max_count);
    if (!fits) {
      base = piece.address;
      const std::uintptr_t offset = base - reinterpret_cast<std::uintptr_t>(parts[piece.rank].raw());
      calls.push_back({static_cast<char*>(parts[piece.rank].raw()) + offset,
                       std::vector<int>(parts.size(), 0), std::vector<int>(parts.size(), 0)});
    }
    calls.back().counts[piece.rank] = narrow<int>(piece.count);
    calls.back().displacements[piece.rank] = narrow<int>((piece.address - base) / element);
    end = piece.address + static_cast<std::uintptr_t>(piece.count) * element;
  }
  return calls;
}

}  // namespace caravan::detail
