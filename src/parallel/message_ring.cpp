#include "caravan/parallel/message_ring.h"

#include "caravan/core/error.h"

namespace caravan {

MessageRing::MessageRing(Backend& backend, DType dtype, std::int64_t elements, Communicator& ranks, int tag)
    : dtype_(dtype),
      elements_(elements),
      ranks_(ranks),
      tag_(tag),
      memory_(backend.allocate(static_cast<std::int64_t>(kBuffers) * elements *
                               static_cast<std::int64_t>(dtype_bytes(dtype)))) {}

TensorView MessageRing::take(const Shape& shape) {
  CARAVAN_CHECK(shape.numel() <= elements_, "a message of {} elements, room for {}", shape.numel(),
                elements_);
  current_ = (current_ + 1) % kBuffers;
  Message& message = messages_[current_];
  message.sending.wait();
  const auto item = static_cast<std::int64_t>(dtype_bytes(dtype_));
  message.view = memory_.view(static_cast<std::int64_t>(current_) * elements_ * item, dtype_, shape);
  return message.view;
}

void MessageRing::send(int peer) {
  messages_[current_].sending = ranks_.start_send(messages_[current_].view, peer, tag_);
}

void MessageRing::finish() {
  for (Message& message : messages_) {
    message.sending.wait();
  }
}

}  // namespace caravan
