#include "caravan/io/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "caravan/core/error.h"

namespace caravan {
namespace {

// Linux moves at most 0x7ffff000 bytes per call; a round number below it keeps reads aligned.
constexpr std::size_t kMaxBytesPerCall = std::size_t{1} << 30U;
// More than the system reads for one read of a page, whole pages wherever it begins.
constexpr std::int64_t kAloneBytes = std::int64_t{64} << 10U;
constexpr std::int64_t kPageBytes = 4096;

}  // namespace

InputFile::InputFile(std::string path) : path_(std::move(path)) {
  // Not blocking: opening a pipe without a writer must end in the error below, not in waiting.
  descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) {
    fail<IoError>("{}: cannot be read: {}", path_, std::strerror(errno));
  }
  struct stat info {};
  if (::fstat(descriptor_, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(descriptor_);
    fail<IoError>("{}: is not a regular file", path_);
  }
  size_ = info.st_size;
}

InputFile::~InputFile() {
  ::close(descriptor_);
}

void InputFile::check_range(std::int64_t offset, std::int64_t bytes) const {
  if (offset < 0 || bytes > size_ || offset > size_ - bytes) {
    fail<IoError>("{}: bytes {} to {} wanted, but the file has {} bytes; it is cut short or damaged", path_,
                  offset, offset + bytes, size_);
  }
}

void InputFile::read_at(std::int64_t offset, std::span<std::byte> destination) const {
  check_range(offset, static_cast<std::int64_t>(destination.size()));
  while (!destination.empty()) {
    const std::size_t bytes = std::min(destination.size(), kMaxBytesPerCall);
    const ssize_t got = ::pread(descriptor_, destination.data(), bytes, offset);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      fail<IoError>("{}: reading at byte {} failed: {}", path_, offset,
                    got < 0 ? std::strerror(errno) : "the file became shorter");
    }
    offset += got;
    destination = destination.subspan(static_cast<std::size_t>(got));
  }
}

void InputFile::read_alone(std::int64_t offset, std::span<std::byte> destination) const {
  check_range(offset, static_cast<std::int64_t>(destination.size()));
  const iovec one{destination.data(), destination.size()};
  const ssize_t cached = ::preadv2(descriptor_, &one, 1, offset, RWF_NOWAIT);
  if (cached == static_cast<ssize_t>(destination.size())) {
    return;
  }
  const bool was_absent = cached < 0 && errno == EAGAIN;  // other file systems do not say
  read_at(offset, destination);
  if (!was_absent) {
    return;
  }
  const std::int64_t page = offset / kPageBytes * kPageBytes;
  ::posix_fadvise(descriptor_, page, kAloneBytes, POSIX_FADV_DONTNEED);
}

}  // namespace caravan
