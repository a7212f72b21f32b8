#include "caravan/comm/recorded_exchanges.h"

namespace caravan {

void RecordedExchanges::record(const std::function<void()>& work) {
  std::vector<Traffic> before;
  for (const Communicator* group : groups_) {
    before.push_back(group->traffic());
  }
  work();
  moving_.clear();
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    Traffic moved = groups_[i]->traffic();
    moved -= before[i];
    groups_[i]->reset_traffic(before[i]);
    if (moved.total().calls > 0) {
      moving_.push_back({groups_[i], moved});
    }
  }
}

void RecordedExchanges::replay(const std::function<void()>& enqueue) {
  for (const Moving& each : moving_) {
    each.group->begin_replay(each.moved);
  }
  enqueue();
  for (const Moving& each : moving_) {
    each.group->end_replay();
  }
}

}  // namespace caravan
