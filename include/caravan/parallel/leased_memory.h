// Memory for groups of parameters that exist here only while somebody uses them.
#pragma once

#include <cstdint>
#include <vector>

#include "caravan/backend/backend.h"
#include "caravan/model/parameter.h"

namespace caravan {

/// What of a parameter a LeasedMemory stands for.
enum class LeasedPart : std::uint8_t { kValue, kGradient };

/// A few slots, each big enough for a group of its size class (the blocks' groups are one class, embedding
/// and head another). A released group stays in its slot until the slot is needed, so using it again soon
/// costs nothing. All ranks that make the same calls in the same order take the same decisions.
class LeasedMemory {
 public:
  /// Whether a released group's contents may make room for another group.
  enum class Keep : std::uint8_t { kWhileThereIsRoom, kAll };
  LeasedMemory(ParameterSet& parameters, LeasedPart part, DType dtype, Backend& backend,
               Keep keep = Keep::kWhileThereIsRoom);

  /// Gives `group` memory and its parameters views of it. True when the contents are still those it had;
  /// false: undefined, to be filled. Counted.
  bool acquire(int group);
  void release(int group);
  /// The contents are not needed any more.
  void forget(int group);
  /// No group's contents are valid any more.
  void forget_all();
  bool holds(int group) const { return find(group) != nullptr; }

  /// Sizes of the slots there are, in the order of their making.
  std::vector<std::int64_t> slot_bytes() const;
  /// Makes the slots that a run of the same model on shapes alone has needed, so that no step makes one.
  void reserve(const std::vector<std::int64_t>& slot_bytes);

  /// Most slots in use at one time.
  int most_in_use() const { return most_in_use_; }
  std::int64_t bytes() const;

 private:
  struct Slot {
    Buffer memory;
    int group = -1;  // whose contents are valid here
    int leases = 0;
    std::int64_t last_use = 0;
  };
  const Slot* find(int group) const;
  Slot* find(int group);
  Slot& slot_for(std::int64_t bytes);
  void point_at(int group, const Buffer* memory);

  ParameterSet& parameters_;
  LeasedPart part_;
  DType dtype_;
  Backend& backend_;
  Keep keep_;
  std::vector<std::int64_t> class_bytes_;  // by group
  std::vector<Slot> slots_;
  std::int64_t clock_ = 0;
  int most_in_use_ = 0;
};

}  // namespace caravan
