// Buffers for what a pipeline stage sends on: a message keeps its buffer until it has left, the rank goes on.
#pragma once

#include <array>

#include "caravan/backend/backend.h"
#include "caravan/comm/communicator.h"

namespace caravan {

class MessageRing {
 public:
  /// Messages of at most `elements` elements to ranks of `ranks`, which outlives the ring, with `tag`.
  MessageRing(Backend& backend, DType dtype, std::int64_t elements, Communicator& ranks, int tag);

  /// Memory for the next message; waits until the message that had it last is gone. Valid until the take()
  /// after the next kOnTheWay ones.
  TensorView take(const Shape& shape);
  /// Starts sending what the last take() gave.
  void send(int peer);
  /// Waits for everything under way.
  void finish();
  std::int64_t bytes() const { return memory_.bytes(); }

  /// Messages that may be on the way while the next one is made: what the interleaved schedule needs.
  static constexpr std::size_t kOnTheWay = 2;

 private:
  static constexpr std::size_t kBuffers = kOnTheWay + 1;
  struct Message {
    TensorView view;
    Pending sending;
  };

  DType dtype_;
  std::int64_t elements_;
  Communicator& ranks_;
  int tag_;
  Buffer memory_;
  std::array<Message, kBuffers> messages_;
  std::size_t current_ = 0;
};

}  // namespace caravan
