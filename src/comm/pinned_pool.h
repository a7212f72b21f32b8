// Page-locked host memory for what travels between a device and other ranks, kept between uses: taking it
// anew costs more than most exchanges.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "caravan/backend/device_streams.h"

namespace caravan::detail {

class PinnedPool {
 public:
  struct Piece {
    Buffer memory;
    Mark last_copy;  // null: none
  };

  explicit PinnedPool(DeviceStreams& device) : device_(&device) {}
  /// Its memory is not given back under a copy that is still under way.
  ~PinnedPool() {
    for (Piece& piece : unused_) {
      try {
        wait_for(piece);
      } catch (...) {  // NOLINT(bugprone-empty-catch): a device that has failed copies nothing any more
      }
    }
  }
  PinnedPool(const PinnedPool&) = delete;
  PinnedPool& operator=(const PinnedPool&) = delete;
  PinnedPool(PinnedPool&&) = delete;
  PinnedPool& operator=(PinnedPool&&) = delete;

  /// At least `bytes`, which host and device may write at once: waits for copies of the last use.
  Piece take(std::int64_t bytes) {
    std::sort(unused_.begin(), unused_.end(),
              [](const Piece& a, const Piece& b) { return a.memory.bytes() < b.memory.bytes(); });
    auto found = std::find_if(unused_.begin(), unused_.end(),
                              [&](const Piece& piece) { return piece.memory.bytes() >= bytes; });
    if (found == unused_.end()) {
      if (!unused_.empty()) {  // a new one takes the place of the largest that is too small
        wait_for(unused_.back());
        unused_.pop_back();
      }
      return {device_->allocate_pinned(std::max<std::int64_t>(bytes, 1)), nullptr};
    }
    Piece piece = std::move(*found);
    unused_.erase(found);
    wait_for(piece);
    return piece;
  }
  /// For the next take().
  void give_back(Piece piece) { unused_.push_back(std::move(piece)); }

 private:
  static void wait_for(Piece& piece) {
    if (piece.last_copy != nullptr) {
      piece.last_copy->wait();
      piece.last_copy = nullptr;
    }
  }

  DeviceStreams* device_;
  std::vector<Piece> unused_;
};

}  // namespace caravan::detail
