#include "caravan/comm/recorded_exchanges.h"

namespace caravan {

void RecordedExchanges::record(const std::function<void()>& work) {
  moved_.clear();
  for (const Communicator* group : groups_) {
    moved_.push_back(group->traffic());
  }
  work();
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    const Traffic before = moved_[i];
    (moved_[i] = groups_[i]->traffic()) -= before;
    groups_[i]->reset_traffic(before);
  }
}

void RecordedExchanges::replay(const std::function<void()>& enqueue) {
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    groups_[i]->begin_replay(moved_.at(i));
  }
  enqueue();
  for (Communicator* group : groups_) {
    group->end_replay();
  }
}

}  // namespace caravan
