// The queues of the emulated device: that their schedules show a missing wait, and that copies, recordings,
// errors and freed memory mean what they do on a GPU.
#include <catch2/catch.hpp>
#include <optional>
#include <set>
#include <thread>
#include <vector>

#include "caravan/core/error.h"
#include "host_runner/device_queues.h"
#include "host_runner/emulated_runtime.h"
#include "kernels/cuda/device_streams.h"

using namespace caravan;
using namespace caravan::host_runner;

namespace {

constexpr QueueSchedule kAtOnce{QueueSchedule::Kind::kAtOnce};
constexpr QueueSchedule kLate{QueueSchedule::Kind::kLate};
constexpr std::int64_t kBytes = sizeof(float);

/// A device with a tensor of one number on either side of a copy between two of its queues.
class Scene {
 public:
  explicit Scene(const QueueSchedule& schedule) {
    previous_ = DeviceQueues::instance().schedule();
    DeviceQueues::instance().set_schedule(schedule);
  }
  ~Scene() { DeviceQueues::instance().set_schedule(previous_); }
  Scene(const Scene&) = delete;
  Scene& operator=(const Scene&) = delete;
  Scene(Scene&&) = delete;
  Scene& operator=(Scene&&) = delete;

  cuda::StreamHandle queue(StreamId id = StreamId::kCompute) { return runtime.stream(id); }
  void put(const Buffer& to, float value, StreamId id = StreamId::kCompute) {
    runtime.copy(to.data(), &value, kBytes, queue(id));
  }
  void copy(const Buffer& to, const Buffer& from, StreamId id = StreamId::kCompute) {
    runtime.copy(to.data(), from.data(), kBytes, queue(id));
  }
  /// Doubles it, by a kernel.
  void twice(const Buffer& x, StreamId id = StreamId::kCompute) {
    cuda::scale({.x = x.view(0, DType::kFloat32, {1}), .factor = 2.0}, queue(id));
  }
  /// After what the queue has; other queues stay behind.
  float get(const Buffer& from, StreamId id = StreamId::kCompute) {
    float value = 0.0F;
    runtime.copy(&value, from.data(), kBytes, queue(id));
    return value;
  }

  EmulatedRuntime runtime{0};
  std::unique_ptr<DeviceStreams> streams = cuda::make_device_streams(runtime);
  Buffer a = runtime.allocate(kBytes);
  Buffer b = runtime.allocate(kBytes);
  Buffer pinned = runtime.allocate_pinned(kBytes);
  float& on_host() { return *static_cast<float*>(pinned.data()); }

 private:
  QueueSchedule previous_;
};

/// What another queue reads of a number that the compute queue has made 2 of 1.
float read_elsewhere(const QueueSchedule& schedule, bool waits) {
  Scene scene(schedule);
  scene.put(scene.a, 1.0F);
  scene.runtime.synchronize(scene.queue());
  scene.twice(scene.a);
  if (waits) {
    scene.streams->wait(scene.streams->stream(StreamId::kParamComm),
                        scene.streams->record(scene.streams->stream(StreamId::kCompute)));
  }
  scene.copy(scene.b, scene.a, StreamId::kParamComm);
  return scene.get(scene.b, StreamId::kParamComm);
}

}  // namespace

TEST_CASE("a schedule has a name that it is read from", "[queues]") {
  for (const char* name : {"at_once", "late", "17"}) {
    CHECK(schedule_name(parse_queue_schedule(name)) == name);
  }
  CHECK_THROWS_WITH(parse_queue_schedule("1st"), Catch::Contains("CARAVAN_EMULATED_QUEUES is '1st'"));
}

TEST_CASE("a wait that is missing between two queues is noticed", "[queues]") {
  CHECK(read_elsewhere(kLate, false) == 1.0F);
  CHECK(read_elsewhere(kLate, true) == 2.0F);
  CHECK(read_elsewhere(kAtOnce, false) == 2.0F);
  int early = 0;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const QueueSchedule schedule{QueueSchedule::Kind::kByChance, seed};
    early += read_elsewhere(schedule, false) == 1.0F ? 1 : 0;
    CHECK(read_elsewhere(schedule, true) == 2.0F);
  }
  CHECK(early > 0);
  CHECK(early < 40);
}

TEST_CASE("memory that is written again before another queue has read it is noticed", "[queues]") {
  for (const bool waits : {false, true}) {
    Scene scene(kLate);
    scene.put(scene.a, 1.0F);
    scene.runtime.synchronize(scene.queue());
    scene.copy(scene.b, scene.a, StreamId::kParamComm);
    const Mark read = scene.streams->record(scene.streams->stream(StreamId::kParamComm));
    if (waits) {
      scene.streams->wait(scene.streams->stream(StreamId::kCompute), read);
    }
    scene.twice(scene.a);
    scene.runtime.synchronize(scene.queue());
    CHECK(scene.get(scene.b, StreamId::kParamComm) == (waits ? 1.0F : 2.0F));
  }
}

TEST_CASE("a queue keeps its order, and the host waits for one queue and what it waits for", "[queues]") {
  for (const QueueSchedule& schedule : {kLate, QueueSchedule{QueueSchedule::Kind::kByChance, 3}}) {
    Scene scene(schedule);
    scene.put(scene.a, 1.0F);
    scene.twice(scene.a);
    scene.copy(scene.b, scene.a);
    scene.twice(scene.a);
    CHECK(scene.get(scene.b) == 2.0F);
    CHECK(scene.get(scene.a) == 4.0F);
  }
  Scene scene(kLate);
  const Stream first = scene.streams->make_stream(StreamId::kPipelineComm);
  const Stream second = scene.streams->make_stream(StreamId::kPipelineComm);
  int step = 0;
  std::vector<int> order;
  const auto note = [&](const Stream& stream) {
    DeviceQueues::instance().enqueue(static_cast<CUstream_st*>(stream.handle),
                                     [&order, number = step++] { order.push_back(number); });
  };
  note(first);
  const Mark begun = scene.streams->record(first);
  note(first);
  scene.streams->wait(second, begun);
  note(second);
  scene.streams->wait(first, scene.streams->record(second));
  note(first);
  begun->wait();
  CHECK(order == std::vector{0});
  scene.streams->record(second)->wait();
  CHECK(order == std::vector{0, 2});
  scene.streams->record(first)->wait();
  CHECK(order == std::vector{0, 2, 1, 3});
}

TEST_CASE("asking whether work is done does not make it run, but for who asks without end", "[queues]") {
  Scene scene(kLate);
  scene.put(scene.a, 1.0F);
  scene.copy(scene.pinned, scene.a);
  const Mark done = scene.streams->record(scene.streams->stream(StreamId::kCompute));
  CHECK_FALSE(done->is_done());
  CHECK_FALSE(done->is_done());
  CHECK(scene.on_host() == 0.0F);
  bool other_has_seen_it = false;
  std::thread([&] {
    for (int i = 0; i < 100; ++i) {
      other_has_seen_it = other_has_seen_it || done->is_done();
    }
  }).join();
  CHECK_FALSE(other_has_seen_it);
  int asked = 0;
  while (!done->is_done() && asked < 100) {
    ++asked;
  }
  CHECK(asked < 100);
  CHECK(scene.on_host() == 1.0F);
}

TEST_CASE("pageable memory is copied when the call is made, page-locked memory in its turn", "[queues]") {
  Scene scene(kLate);
  float pageable = 1.0F;
  scene.runtime.copy(scene.a.data(), &pageable, kBytes, scene.queue());
  pageable = 3.0F;
  CHECK(scene.get(scene.a) == 1.0F);
  scene.runtime.copy(&pageable, scene.a.data(), kBytes, scene.queue());
  CHECK(pageable == 1.0F);

  scene.on_host() = 5.0F;
  scene.copy(scene.a, scene.pinned);
  scene.on_host() = 6.0F;  // too early
  CHECK(scene.get(scene.a) == 6.0F);
  scene.twice(scene.a);
  scene.copy(scene.pinned, scene.a);
  CHECK(scene.on_host() == 6.0F);  // too early
  scene.runtime.synchronize(scene.queue());
  CHECK(scene.on_host() == 12.0F);
  scene.runtime.copy(&pageable, scene.pinned.data(), kBytes, scene.queue());
  CHECK(pageable == 12.0F);
}

TEST_CASE("a recording runs when it is replayed, in its queue's order, though it is gone by then",
          "[queues]") {
  Scene scene(kLate);
  scene.put(scene.a, 1.0F);
  scene.runtime.begin_recording(scene.queue());
  scene.twice(scene.a);
  scene.copy(scene.b, scene.a);
  CHECK_THROWS(scene.runtime.synchronize(scene.queue()));
  CHECK_THROWS(scene.put(scene.a, 1.0F));
  scene.put(scene.b, 9.0F, StreamId::kParamComm);  // another queue goes on
  std::unique_ptr<Recording> recording = scene.runtime.end_recording(scene.queue());
  CHECK(scene.get(scene.b, StreamId::kParamComm) == 9.0F);
  CHECK(scene.get(scene.a) == 1.0F);
  Stream stream = scene.streams->stream(StreamId::kCompute);
  recording->replay(stream);
  scene.twice(scene.a);
  recording->replay(stream);
  recording.reset();
  CHECK(scene.get(scene.b) == 8.0F);
}

TEST_CASE("queues that wait for marks of a recording are recorded with it", "[queues]") {
  for (const QueueSchedule& schedule : {kAtOnce, kLate, QueueSchedule{QueueSchedule::Kind::kByChance, 5}}) {
    Scene scene(schedule);
    const Stream compute = scene.streams->stream(StreamId::kCompute);
    const Stream other = scene.streams->stream(StreamId::kParamComm);
    scene.put(scene.a, 1.0F);
    scene.runtime.begin_recording(scene.queue());
    CHECK(scene.streams->is_recording());
    scene.twice(scene.a);
    scene.streams->wait(other, scene.streams->record(compute));
    scene.copy(scene.b, scene.a, StreamId::kParamComm);
    scene.twice(scene.b, StreamId::kParamComm);
    scene.streams->wait(compute, scene.streams->record(other));
    scene.copy(scene.a, scene.b);
    const std::unique_ptr<Recording> recording = scene.runtime.end_recording(scene.queue());
    CHECK_FALSE(scene.streams->is_recording());
    scene.put(scene.b, 100.0F, StreamId::kParamComm);  // not recorded any more
    CHECK(scene.get(scene.b, StreamId::kParamComm) == 100.0F);
    CHECK(scene.get(scene.a) == 1.0F);
    Stream stream = compute;
    recording->replay(stream);
    recording->replay(stream);
    CHECK(scene.get(scene.a) == 16.0F);
  }
}

TEST_CASE("what a capture refuses, a recording refuses", "[queues]") {
  Scene scene(kLate);
  const Stream compute = scene.streams->stream(StreamId::kCompute);
  const Stream other = scene.streams->stream(StreamId::kParamComm);
  scene.put(scene.a, 1.0F, StreamId::kParamComm);
  const Mark outside = scene.streams->record(other);
  scene.runtime.begin_recording(scene.queue());
  CHECK_THROWS_WITH(scene.runtime.begin_recording(scene.queue(StreamId::kCopy)),
                    Catch::Contains("begins within another one"));
  CHECK_THROWS_WITH(scene.streams->wait(compute, outside), Catch::Contains("a mark from outside of it"));
  const Mark inside = scene.streams->record(compute);
  CHECK_THROWS_WITH(inside->wait(), Catch::Contains("the host waits for a mark of a recording"));
  CHECK_THROWS_WITH(inside->is_done(), Catch::Contains("the host asks for a mark of a recording"));
  scene.streams->wait(other, inside);
  scene.twice(scene.a, StreamId::kParamComm);
  CHECK_THROWS_WITH(scene.runtime.end_recording(scene.queue()),
                    Catch::Contains("does not wait for what queue 1 of it was given last"));
  CHECK_FALSE(scene.streams->is_recording());
  CHECK_THROWS_WITH(scene.streams->wait(other, inside),
                    Catch::Contains("a mark of a recording that is over"));
  CHECK_THROWS_WITH(scene.runtime.end_recording(scene.queue()), Catch::Contains("has not begun"));
}

TEST_CASE("memory that is freed is waited for, on every queue", "[queues]") {
  Scene scene(kLate);
  const std::int64_t free = scene.runtime.free_bytes();
  std::optional<Buffer> here = scene.runtime.allocate(kBytes);
  std::optional<Buffer> there = scene.runtime.allocate_pinned(kBytes);
  scene.put(*here, 7.0F);
  scene.copy(*there, *here);
  scene.streams->wait(scene.streams->stream(StreamId::kCopy),
                      scene.streams->record(scene.streams->stream(StreamId::kCompute)));
  scene.copy(scene.pinned, *there, StreamId::kCompute);
  scene.copy(scene.b, *here, StreamId::kCopy);
  here.reset();
  there.reset();
  CHECK(scene.runtime.free_bytes() == free);
  CHECK(scene.get(scene.b, StreamId::kCopy) == 7.0F);
  CHECK(scene.on_host() == 7.0F);
}

TEST_CASE("addresses of freed memory are not given out again", "[queues]") {
  Scene scene(kLate);
  std::set<const void*> seen;
  for (int i = 0; i < 20; ++i) {
    CHECK(seen.insert(scene.runtime.allocate(kBytes).data()).second);
    CHECK(seen.insert(scene.runtime.allocate_pinned(kBytes).data()).second);
  }
}

TEST_CASE("what work throws comes out where the host waits, and the rest is not run", "[queues]") {
  Scene scene(kLate);
  scene.put(scene.a, 1.0F);
  DeviceQueues::instance().enqueue(scene.queue(), [] { fail<DeviceError>("a kernel failed"); });
  scene.twice(scene.a);
  scene.copy(scene.b, scene.a, StreamId::kParamComm);
  { const Buffer freed = scene.runtime.allocate(kBytes); }
  CHECK_THROWS_WITH(scene.runtime.synchronize(scene.queue(StreamId::kParamComm)), "a kernel failed");
  CHECK_NOTHROW(scene.runtime.synchronize(scene.queue()));
  CHECK(scene.get(scene.a) == 1.0F);
}
