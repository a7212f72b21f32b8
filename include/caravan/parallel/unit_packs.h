// How the parameters of a unit lie side by side where a message holds a unit's rows of every member of a
// group.
#pragma once

#include <vector>

#include "caravan/model/parameter.h"

namespace caravan {

/// Rows [begin, end) of a parameter's local part that member `index` of `count` keeps: as even as rows allow.
Range shard_rows(std::int64_t rows, std::int64_t index, std::int64_t count);

/// A unit is a parameter group. A member's pack holds its rows of all the unit's parameters, each padded to
/// the same number of rows for every member, so that all packs of a unit are equally long.
class UnitPacks {
 public:
  enum class Part : std::uint8_t { kValue, kGradient };
  /// One parameter in its unit's pack.
  struct Piece {
    Parameter* parameter = nullptr;
    std::int64_t padded_rows = 0;
    std::int64_t row_items = 0;
    std::int64_t offset = 0;  // elements from the start of a member's pack
  };
  struct Unit {
    std::vector<Piece> pieces;  // none: a group of another pipeline stage
    std::int64_t items = 0;     // of one member's pack
    std::int64_t offset = 0;    // of that pack among all units' packs
  };

  /// `parameters` outlive it.
  UnitPacks(ParameterSet& parameters, std::int64_t members);

  const std::vector<Unit>& units() const { return units_; }
  const Unit& unit(int group) const { return units_.at(static_cast<std::size_t>(group)); }
  std::int64_t members() const { return members_; }
  /// Elements of a member's packs of all units, and of the largest.
  std::int64_t total_items() const { return total_; }
  std::int64_t largest_items() const { return largest_; }

  /// A member's rows of the whole tensors, side by side in `to`; what pads them is zero, so that sums stay
  /// finite.
  void pack(const Context& ctx, const Unit& unit, Part part, std::int64_t member, const TensorView& to) const;
  /// The way back, into the whole tensors.
  void unpack(const Context& ctx, const Unit& unit, Part part, std::int64_t member,
              const TensorView& from) const;
  /// All members' packs, one behind the other.
  void pack_all(const Context& ctx, const Unit& unit, Part part, const TensorView& to) const;
  void unpack_all(const Context& ctx, const Unit& unit, Part part, const TensorView& from) const;

 private:
  std::int64_t members_;
  std::vector<Unit> units_;  // by group
  std::int64_t total_ = 0;
  std::int64_t largest_ = 0;
};

}  // namespace caravan
