// What groups of ranks exchange within work that a device has recorded.
#pragma once

#include <functional>
#include <vector>

#include "caravan/comm/communicator.h"

namespace caravan {

/// Of one recording. Recording an exchange moves nothing; every replay moves all of it, and the groups
/// neither count nor watch what nobody asks them for: this does.
class RecordedExchanges {
 public:
  /// Groups that recorded work may call (Communicator::can_be_recorded), alike and in one order on all ranks.
  /// They outlive it.
  explicit RecordedExchanges(std::vector<Communicator*> groups) : groups_(std::move(groups)) {}

  /// `work` calls the groups while the device records.
  void record(const std::function<void()>& work);
  /// `enqueue` enqueues the recording.
  void replay(const std::function<void()>& enqueue);

 private:
  struct Moving {
    Communicator* group = nullptr;
    Traffic moved;  // by a replay
  };
  std::vector<Communicator*> groups_;
  std::vector<Moving> moving_;  // those that the work has called
};

}  // namespace caravan
