#include "caravan/data/bounded_queue.h"

#include <catch2/catch.hpp>
#include <stdexcept>
#include <thread>

using caravan::BoundedQueue;

TEST_CASE("items arrive in order and then the end", "[data][queue]") {
  BoundedQueue<int> queue(2);
  std::thread producer([&queue] {
    for (int i = 0; i < 10000; ++i) {
      queue.push(i);
    }
    queue.finish();
  });
  int wrong = 0;
  for (int i = 0; i < 10000; ++i) {
    wrong += queue.pop() == i ? 0 : 1;
  }
  CHECK(wrong == 0);
  CHECK_FALSE(queue.pop());
  CHECK_FALSE(queue.pop());
  producer.join();
}

TEST_CASE("closing releases a producer that waits for room", "[data][queue]") {
  BoundedQueue<int> queue(1);
  bool was_pushed = true;
  std::thread producer([&] {
    while (queue.push(1)) {
    }
    was_pushed = false;
  });
  queue.close();
  producer.join();
  CHECK_FALSE(was_pushed);
}

TEST_CASE("a failure arrives after the items before it", "[data][queue]") {
  BoundedQueue<int> queue(4);
  queue.push(1);
  queue.fail(std::make_exception_ptr(std::runtime_error("broken")));
  CHECK(queue.pop() == 1);
  CHECK_THROWS_AS(queue.pop(), std::runtime_error);
  CHECK_THROWS_AS(queue.pop(), std::runtime_error);
}
