// The functions of NCCL that Caravan calls, for processes of one machine: bytes pass through a shared file,
// on the stream that a call names. As with NCCL, calls return before their work is done, calls of one group
// of calls go on together, and a lost rank shows as an error that somebody has to ask for, while the work
// hangs.
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "shared_ranks.h"
#include "src/comm/nccl_abi.h"

using caravan::nccl::UniqueId;

namespace fake_nccl {
namespace {

/// Runs work in the order of a stream, as often as a recording of it is replayed, and drops it when it will
/// not run again; without one at once.
using Enqueue = void (*)(void* stream, void (*run)(void*), void (*drop)(void*), void* argument);
Enqueue enqueue_on_stream = nullptr;

/// What goes wrong next, set by tests.
struct Fault {
  std::string function;
  int after = 0;  // calls that still work
  int result = 0;
  bool is_async = false;
};
Fault fault;

/// The result a call returns, or leaves for CommGetAsyncError.
int fault_of(const char* function, std::atomic<int>* async) {
  if (fault.result == 0 || fault.function != function || fault.after-- > 0) {
    return 0;
  }
  const int result = std::exchange(fault.result, 0);
  if (fault.is_async && async != nullptr) {
    *async = result;
    return 0;
  }
  return result;
}

thread_local int group_depth = 0;

struct Message {
  SharedRanks* ranks;
  bool sends;
  std::byte* memory;
  std::size_t bytes;
  int peer;
  std::size_t at = 0;
};
struct Group {
  void* stream = nullptr;
  std::vector<Message> messages;
};
thread_local Group group;

void run_on(void* stream, std::function<void()> work) {
  if (enqueue_on_stream == nullptr) {
    work();
    return;
  }
  using Owned = std::function<void()>;
  enqueue_on_stream(
      stream, [](void* argument) { (*static_cast<Owned*>(argument))(); },
      [](void* argument) { delete static_cast<Owned*>(argument); }, new Owned(std::move(work)));
}

/// All messages go on together until each has passed.
void pass(std::vector<Message> messages) {
  for (;;) {
    bool is_done = true;
    bool has_moved = false;
    for (Message& each : messages) {
      if (each.at < each.bytes) {
        const std::size_t moved =
            each.sends ? each.ranks->put(each.peer, each.memory + each.at, each.bytes - each.at)
                       : each.ranks->take(each.peer, each.memory + each.at, each.bytes - each.at);
        each.at += moved;
        has_moved = has_moved || moved > 0;
        is_done = is_done && each.at == each.bytes;
      }
    }
    if (is_done) {
      return;
    }
    if (!has_moved && !messages.front().ranks->pause()) {
      return;
    }
  }
}

int message(Message each, void* stream) {
  group.stream = stream;
  group.messages.push_back(each);
  if (group_depth == 0) {
    run_on(stream, [messages = std::exchange(group.messages, {})] { pass(messages); });
  }
  return 0;
}

std::size_t item_bytes(int type) {
  switch (type) {
    case caravan::nccl::kInt8:
      return 1;
    case caravan::nccl::kFloat16:
    case caravan::nccl::kBFloat16:
      return 2;
    case caravan::nccl::kFloat32:
      return 4;
    default:
      return 8;
  }
}

SharedRanks* ranks_of(caravan::nccl::Comm* comm) {
  return reinterpret_cast<SharedRanks*>(comm);
}

}  // namespace
}  // namespace fake_nccl

using namespace fake_nccl;
using caravan::nccl::Comm;

#define FAKE_NCCL_API extern "C" __attribute__((visibility("default")))

// For tests.
FAKE_NCCL_API void fake_nccl_use_streams(void (*enqueue)(void*, void (*)(void*), void (*)(void*), void*)) {
  enqueue_on_stream = enqueue;
}
FAKE_NCCL_API void fake_nccl_fail(const char* function, int after, int result, int is_async) {
  fault = {function, after, result, is_async != 0};
}

// NOLINTBEGIN(readability-identifier-naming): the names are NCCL's
FAKE_NCCL_API int ncclGetVersion(int* version) {
  const char* given = std::getenv("FAKE_NCCL_VERSION");
  *version = given != nullptr ? std::atoi(given) : 22809;
  return 0;
}
FAKE_NCCL_API int ncclGetUniqueId(UniqueId* id) {
  const std::string name = SharedRanks::make_name();
  std::memset(id->bytes, 0, sizeof(id->bytes));
  name.copy(id->bytes, sizeof(id->bytes) - 1);
  return fault_of("GetUniqueId", nullptr);
}
FAKE_NCCL_API int ncclCommInitRank(Comm** comm, int ranks, UniqueId id, int rank) {
  if (const int result = fault_of("CommInitRank", nullptr); result != 0) {
    return result;
  }
  *comm = reinterpret_cast<Comm*>(new SharedRanks(id.bytes, ranks, rank));
  return 0;
}
// Handles stay: work of a stream may still look at them.
FAKE_NCCL_API int ncclCommDestroy(Comm* comm) {
  ranks_of(comm)->leave();
  return 0;
}
FAKE_NCCL_API int ncclCommAbort(Comm* comm) {
  ranks_of(comm)->leave();
  return 0;
}
FAKE_NCCL_API int ncclCommGetAsyncError(Comm* comm, int* error) {
  *error = ranks_of(comm)->async_error;
  return 0;
}
FAKE_NCCL_API const char* ncclGetErrorString(int result) {
  return result == 6   ? "remote process exited or there was a network error"
         : result == 1 ? "unhandled cuda error"
                       : "some error";
}
FAKE_NCCL_API const char* ncclGetLastError(Comm* /*comm*/) {
  return "fake: told on purpose";
}
FAKE_NCCL_API int ncclAllReduce(const void* from, void* to, std::size_t count, int type, int op, Comm* comm,
                                void* stream) {
  SharedRanks* ranks = ranks_of(comm);
  if (const int result = fault_of("AllReduce", &ranks->async_error); result != 0) {
    return result;
  }
  run_on(stream, [=] { ranks->reduce(from, to, count, type, op); });
  return 0;
}
FAKE_NCCL_API int ncclBroadcast(const void* from, void* to, std::size_t count, int type, int root, Comm* comm,
                                void* stream) {
  SharedRanks* ranks = ranks_of(comm);
  run_on(stream, [=] { ranks->broadcast(from, to, count * item_bytes(type), root); });
  return fault_of("Broadcast", &ranks->async_error);
}
FAKE_NCCL_API int ncclAllGather(const void* from, void* to, std::size_t count, int type, Comm* comm,
                                void* stream) {
  SharedRanks* ranks = ranks_of(comm);
  run_on(stream, [=] { ranks->gather(from, to, count * item_bytes(type)); });
  return fault_of("AllGather", &ranks->async_error);
}
FAKE_NCCL_API int ncclReduceScatter(const void* from, void* to, std::size_t count, int type, int op,
                                    Comm* comm, void* stream) {
  SharedRanks* ranks = ranks_of(comm);
  run_on(stream, [=] { ranks->reduce_scatter(from, to, count, type, op); });
  return fault_of("ReduceScatter", &ranks->async_error);
}
FAKE_NCCL_API int ncclSend(const void* from, std::size_t count, int type, int peer, Comm* comm,
                           void* stream) {
  auto* memory = static_cast<std::byte*>(const_cast<void*>(from));
  return message({ranks_of(comm), true, memory, count * item_bytes(type), peer}, stream);
}
#if !defined(FAKE_NCCL_WITHOUT_RECV)
FAKE_NCCL_API int ncclRecv(void* to, std::size_t count, int type, int peer, Comm* comm, void* stream) {
  return message({ranks_of(comm), false, static_cast<std::byte*>(to), count * item_bytes(type), peer},
                 stream);
}
#endif
FAKE_NCCL_API int ncclGroupStart() {
  ++group_depth;
  return 0;
}
FAKE_NCCL_API int ncclGroupEnd() {
  if (--group_depth == 0 && !group.messages.empty()) {
    run_on(group.stream, [messages = std::exchange(group.messages, {})] { pass(messages); });
  }
  return 0;
}
// NOLINTEND(readability-identifier-naming)
