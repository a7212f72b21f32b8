#include "start_queue.h"

#include <utility>

namespace caravan::detail {

StartQueue& StartQueue::of_this_rank() {
  static StartQueue& queue = *new StartQueue;  // never destroyed: devices go before static objects do
  return queue;
}

void StartQueue::push(Mark ready, std::function<void()> start) {
  entries_.push_back({std::move(ready), std::move(start)});
}

void StartQueue::start_first() {
  const std::function<void()> start = std::move(entries_.front().start);
  entries_.pop_front();
  start();
}

void StartQueue::flush() {
  while (!entries_.empty()) {
    entries_.front().ready->wait();
    start_first();
  }
}

void StartQueue::advance() {
  while (!entries_.empty() && entries_.front().ready->is_done()) {
    start_first();
  }
}

}  // namespace caravan::detail
