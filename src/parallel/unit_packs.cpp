#include "caravan/parallel/unit_packs.h"

#include <algorithm>

#include "caravan/ops/elementwise.h"

namespace caravan {
namespace {

TensorView whole_of(const Parameter& parameter, UnitPacks::Part part) {
  return part == UnitPacks::Part::kGradient ? parameter.stored_grad() : parameter.stored_value();
}

/// A member's pack among all of them.
TensorView of_member(const TensorView& all, const UnitPacks::Unit& unit, std::int64_t member) {
  return all.rows(member * unit.items, (member + 1) * unit.items);
}

}  // namespace

Range shard_rows(std::int64_t rows, std::int64_t index, std::int64_t count) {
  const std::int64_t base = rows / count;
  const std::int64_t extra = rows % count;
  const std::int64_t begin = index * base + std::min(index, extra);
  return {begin, begin + base + (index < extra ? 1 : 0)};
}

UnitPacks::UnitPacks(ParameterSet& parameters, std::int64_t members) : members_(members) {
  for (Parameter& parameter : parameters.all()) {
    const auto group = static_cast<std::size_t>(parameter.spec().group);
    units_.resize(std::max(units_.size(), group + 1));
    Unit& unit = units_[group];
    const std::int64_t rows = parameter.shape()[0];
    const std::int64_t row_items = rows == 0 ? 0 : parameter.shape().numel() / rows;
    const std::int64_t padded = (rows + members - 1) / members;
    unit.pieces.push_back({&parameter, padded, row_items, unit.items});
    unit.items += padded * row_items;
  }
  for (Unit& unit : units_) {
    unit.offset = total_;
    total_ += unit.items;
    largest_ = std::max(largest_, unit.items);
  }
}

void UnitPacks::pack(const Context& ctx, const Unit& unit, Part part, std::int64_t member,
                     const TensorView& to) const {
  for (const Piece& piece : unit.pieces) {
    const TensorView whole = whole_of(*piece.parameter, part);
    const Range rows = shard_rows(piece.parameter->shape()[0], member, members_);
    const std::int64_t end = piece.offset + rows.size() * piece.row_items;
    if (rows.size() > 0) {
      const TensorView from = whole.rows(rows.begin, rows.end);
      copy(ctx, {.from = from, .to = to.rows(piece.offset, end).reshape(from.shape())});
    }
    if (rows.size() < piece.padded_rows) {
      zero(ctx, {.x = to.rows(end, piece.offset + piece.padded_rows * piece.row_items)});
    }
  }
}

void UnitPacks::unpack(const Context& ctx, const Unit& unit, Part part, std::int64_t member,
                       const TensorView& from) const {
  for (const Piece& piece : unit.pieces) {
    const Range rows = shard_rows(piece.parameter->shape()[0], member, members_);
    if (rows.size() == 0) {
      continue;
    }
    const TensorView to = whole_of(*piece.parameter, part).rows(rows.begin, rows.end);
    copy(ctx, {.from = from.rows(piece.offset, piece.offset + to.numel()).reshape(to.shape()), .to = to});
  }
}

void UnitPacks::pack_all(const Context& ctx, const Unit& unit, Part part, const TensorView& to) const {
  for (std::int64_t member = 0; member < members_; ++member) {
    pack(ctx, unit, part, member, of_member(to, unit, member));
  }
}

void UnitPacks::unpack_all(const Context& ctx, const Unit& unit, Part part, const TensorView& from) const {
  for (std::int64_t member = 0; member < members_; ++member) {
    unpack(ctx, unit, part, member, of_member(from, unit, member));
  }
}

}  // namespace caravan
