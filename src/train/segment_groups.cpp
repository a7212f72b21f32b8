#include "caravan/train/segment_groups.h"

#include <algorithm>
#include <limits>

namespace caravan {

SegmentGroups::SegmentGroups(const Llama& model, ParamStore& store) : store_(store) {
  for (const auto& segment : model.segments()) {
    groups_.push_back(segment->groups());
  }
  groups_.push_back(model.has_head() ? model.head().groups() : std::vector<int>());
  for (std::size_t user = 0; user < groups_.size(); ++user) {
    for (const int group : groups_[user]) {
      const auto index = static_cast<std::size_t>(group);
      first_user_.resize(std::max(first_user_.size(), index + 1), std::numeric_limits<std::size_t>::max());
      first_user_[index] = std::min(first_user_[index], user);
    }
  }
}

void SegmentGroups::prefetch(std::size_t user, LeaseUse use) {
  for (const int group : groups_[user]) {
    store_.prefetch(group, use);
  }
}

void SegmentGroups::commit(std::size_t user, MicroBatch micro_batch) {
  for (const int group : groups_[user]) {
    if (first_user_[static_cast<std::size_t>(group)] == user) {
      store_.commit(group, micro_batch);
    }
  }
}

}  // namespace caravan
