// Dynamic shared memory in pieces, each with a gap behind it.
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "host_runner/runner.h"
#include "host_runner/sanitizers.h"

namespace caravan::host_runner {
namespace {

constexpr std::size_t kAlignment = 128;  // of a piece; enough for ldmatrix rows and every vector type
constexpr std::size_t kGap = 256;
constexpr std::size_t kMemory = 512UL * 1024;  // 163 KiB in up to 1000 pieces
constexpr std::size_t kDeviceAlignment = 16;   // SharedMemory::take on the device

std::size_t rounded_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

}  // namespace

SharedPieces::SharedPieces() {
  void* memory =
      mmap(nullptr, kMemory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CARAVAN_CHECK(memory != MAP_FAILED, "no memory for {} bytes of shared memory", kMemory);
  memory_ = static_cast<unsigned char*>(memory);
}

SharedPieces::~SharedPieces() {
  unpoison(memory_, kMemory);
  munmap(memory_, kMemory);
}

void SharedPieces::reset() {
  unpoison(memory_, used_);
  pieces_.clear();
  used_ = 0;
  device_used_ = 0;
}

std::string SharedPieces::take(int piece, std::size_t bytes, std::size_t limit, void*& address) {
  const auto number = static_cast<std::size_t>(piece);
  if (number < pieces_.size()) {
    if (pieces_[number].bytes != bytes) {
      return fmt::format("takes {} bytes as piece {} of shared memory, of which another thread has taken {}",
                         bytes, piece, pieces_[number].bytes);
    }
    address = memory_ + pieces_[number].begin;
    return {};
  }
  device_used_ = rounded_up(device_used_, kDeviceAlignment) + bytes;
  if (device_used_ > limit) {
    return fmt::format("takes shared memory up to {} bytes, of {} the kernel was launched with", device_used_,
                       limit);
  }
  const std::size_t begin = used_;
  const std::size_t end = rounded_up(begin + bytes + kGap, kAlignment);
  CARAVAN_CHECK(end <= kMemory, "too many pieces of shared memory: {}", piece + 1);
  std::memset(memory_ + begin, 0xff, end - begin);
  poison(memory_ + begin + bytes, end - begin - bytes);
  pieces_.push_back({begin, bytes});
  used_ = end;
  address = memory_ + begin;
  return {};
}

void* Runner::take_shared(int piece, std::size_t bytes, Site site) {
  void* address = nullptr;
  std::string fault;
  {
    const RunnerWork work;
    fault = team_->shared.take(piece, bytes, shared_bytes_, address);
  }
  if (!fault.empty()) {
    fail_thread(std::move(fault), site);
  }
  return address;
}

void* take_shared(int piece, std::size_t bytes, Site site) {
  return runner().take_shared(piece, bytes, site);
}

}  // namespace caravan::host_runner
