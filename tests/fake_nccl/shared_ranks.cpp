#include "shared_ranks.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "caravan/core/dtype.h"
#include "src/comm/nccl_abi.h"

namespace fake_nccl {

constexpr int kMostRanks = 8;
constexpr std::size_t kSlotBytes = 4096;

struct Slot {
  alignas(64) std::byte bytes[kSlotBytes];
};
struct Mailbox {
  alignas(64) std::atomic<std::size_t> bytes;  // 0: empty
  std::byte data[kSlotBytes];
};
struct SharedMemory {
  std::atomic<int> joined;
  std::atomic<int> arrived;
  std::atomic<unsigned> generation;
  std::atomic<int> process[kMostRanks];
  std::atomic<int> has_left[kMostRanks];
  Slot slots[kMostRanks];
  Mailbox mail[kMostRanks][kMostRanks];  // sender, receiver
};

namespace {

float half_to_float(int type, std::uint16_t bits) {
  return type == caravan::nccl::kBFloat16 ? caravan::to_float(caravan::BFloat16{bits})
                                          : caravan::to_float(caravan::Float16{bits});
}

std::uint16_t float_to_half(int type, float value) {
  return type == caravan::nccl::kBFloat16 ? caravan::to_bfloat16(value).bits
                                          : caravan::to_float16(value).bits;
}

template <class T>
T combined(T a, T b, int op) {
  return op == caravan::nccl::kMax ? std::max(a, b) : op == caravan::nccl::kMin ? std::min(a, b) : a + b;
}

template <class T>
void combine_all(void* into, const void* other, std::size_t count, int op) {
  for (std::size_t i = 0; i < count; ++i) {
    static_cast<T*>(into)[i] = combined(static_cast<T*>(into)[i], static_cast<const T*>(other)[i], op);
  }
}

/// 16-bit numbers are rounded after every rank.
void combine(void* into, const void* other, std::size_t count, int type, int op) {
  switch (type) {
    case caravan::nccl::kFloat32:
      return combine_all<float>(into, other, count, op);
    case caravan::nccl::kFloat64:
      return combine_all<double>(into, other, count, op);
    case caravan::nccl::kInt64:
      return combine_all<std::int64_t>(into, other, count, op);
    default:
      break;
  }
  auto* mine = static_cast<std::uint16_t*>(into);
  const auto* theirs = static_cast<const std::uint16_t*>(other);
  for (std::size_t i = 0; i < count; ++i) {
    mine[i] = float_to_half(type, combined(half_to_float(type, mine[i]), half_to_float(type, theirs[i]), op));
  }
}

std::size_t item_bytes(int type) {
  return type == caravan::nccl::kFloat16 || type == caravan::nccl::kBFloat16 ? 2
         : type == caravan::nccl::kFloat32                                   ? 4
                                                                             : 8;
}

std::byte* at(void* memory, std::size_t offset) {
  return static_cast<std::byte*>(memory) + offset;
}
const std::byte* at(const void* memory, std::size_t offset) {
  return static_cast<const std::byte*>(memory) + offset;
}

}  // namespace

std::string SharedRanks::make_name() {
  static int number = 0;
  char name[100];
  std::snprintf(name, sizeof(name), "/caravan-fake-nccl-%d-%d", static_cast<int>(getpid()), number++);
  return name;
}

SharedRanks::SharedRanks(const std::string& name, int ranks, int rank) : ranks_(ranks), rank_(rank) {
  const int file = shm_open(name.c_str(), O_RDWR | O_CREAT, 0600);
  if (file < 0 || ftruncate(file, sizeof(SharedMemory)) != 0 || ranks > kMostRanks) {
    std::abort();
  }
  // New memory is zero, which is where all counts begin.
  void* memory = mmap(nullptr, sizeof(SharedMemory), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory == MAP_FAILED) {
    std::abort();
  }
  shared_ = static_cast<SharedMemory*>(memory);
  shared_->process[rank] = static_cast<int>(getpid());
  if (++shared_->joined == ranks) {
    shm_unlink(name.c_str());
  }
  while (shared_->joined < ranks) {
    usleep(100);
  }
}

bool SharedRanks::has_lost_a_rank() const {
  for (int r = 0; r < ranks_; ++r) {
    if (shared_->has_left[r] != 0 || (kill(shared_->process[r], 0) != 0 && errno == ESRCH)) {
      return true;
    }
  }
  return false;
}

bool SharedRanks::pause() {
  if (has_left_) {
    return false;
  }
  if (has_lost_a_rank()) {
    int none = 0;
    async_error.compare_exchange_strong(none, caravan::nccl::kRemoteError);
  }
  if (async_error != 0) {
    usleep(1000);  // stuck until this rank leaves
  }
  sched_yield();
  return true;
}

void SharedRanks::leave() {
  shared_->has_left[rank_] = 1;
  has_left_ = true;
}

bool SharedRanks::barrier() {
  const unsigned before = shared_->generation;
  if (++shared_->arrived == ranks_) {
    shared_->arrived = 0;
    ++shared_->generation;
    return true;
  }
  while (shared_->generation == before) {
    if (!pause()) {
      return false;
    }
  }
  return true;
}

void SharedRanks::reduce(const void* from, void* to, std::size_t count, int type, int op) {
  const std::size_t item = item_bytes(type);
  const std::size_t per_slot = kSlotBytes / item;
  for (std::size_t begin = 0; begin < count; begin += per_slot) {
    const std::size_t now = std::min(per_slot, count - begin);
    std::memcpy(shared_->slots[rank_].bytes, at(from, begin * item), now * item);
    if (!barrier()) {
      return;
    }
    std::byte sum[kSlotBytes];
    std::memcpy(sum, shared_->slots[0].bytes, now * item);
    for (int r = 1; r < ranks_; ++r) {
      combine(sum, shared_->slots[r].bytes, now, type, op);
    }
    if (!barrier()) {
      return;
    }
    std::memcpy(at(to, begin * item), sum, now * item);
  }
}

void SharedRanks::reduce_scatter(const void* from, void* to, std::size_t count, int type, int op) {
  const std::size_t item = item_bytes(type);
  const std::size_t per_slot = kSlotBytes / item;
  for (int part = 0; part < ranks_; ++part) {
    for (std::size_t begin = 0; begin < count; begin += per_slot) {
      const std::size_t now = std::min(per_slot, count - begin);
      const std::size_t offset = (static_cast<std::size_t>(part) * count + begin) * item;
      std::memcpy(shared_->slots[rank_].bytes, at(from, offset), now * item);
      if (!barrier()) {
        return;
      }
      if (part == rank_) {
        std::byte sum[kSlotBytes];
        std::memcpy(sum, shared_->slots[0].bytes, now * item);
        for (int r = 1; r < ranks_; ++r) {
          combine(sum, shared_->slots[r].bytes, now, type, op);
        }
        std::memcpy(at(to, begin * item), sum, now * item);
      }
      if (!barrier()) {
        return;
      }
    }
  }
}

void SharedRanks::gather(const void* from, void* to, std::size_t bytes) {
  for (std::size_t begin = 0; begin < bytes; begin += kSlotBytes) {
    const std::size_t now = std::min(kSlotBytes, bytes - begin);
    std::memcpy(shared_->slots[rank_].bytes, at(from, begin), now);
    if (!barrier()) {
      return;
    }
    for (int r = 0; r < ranks_; ++r) {
      std::memcpy(at(to, static_cast<std::size_t>(r) * bytes + begin), shared_->slots[r].bytes, now);
    }
    if (!barrier()) {
      return;
    }
  }
}

void SharedRanks::broadcast(const void* from, void* to, std::size_t bytes, int root) {
  for (std::size_t begin = 0; begin < bytes; begin += kSlotBytes) {
    const std::size_t now = std::min(kSlotBytes, bytes - begin);
    if (rank_ == root) {
      std::memcpy(shared_->slots[root].bytes, at(from, begin), now);
    }
    if (!barrier()) {
      return;
    }
    std::memcpy(at(to, begin), shared_->slots[root].bytes, now);
    if (!barrier()) {
      return;
    }
  }
}

std::size_t SharedRanks::put(int peer, const std::byte* from, std::size_t bytes) {
  Mailbox& box = shared_->mail[rank_][peer];
  if (has_left_ || box.bytes != 0) {
    return 0;
  }
  const std::size_t now = std::min(bytes, kSlotBytes);
  std::memcpy(box.data, from, now);
  box.bytes = now;
  return now;
}

std::size_t SharedRanks::take(int peer, std::byte* to, std::size_t bytes) {
  Mailbox& box = shared_->mail[peer][rank_];
  const std::size_t there = box.bytes;
  if (has_left_ || there == 0) {
    return 0;
  }
  const std::size_t now = std::min(bytes, there);
  std::memcpy(to, box.data, now);
  box.bytes = 0;
  return now;
}

}  // namespace fake_nccl
