#include "caravan/io/run_folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <utility>

#include "caravan/core/clock.h"
#include "caravan/core/error.h"
#include "caravan/core/log.h"
#include "caravan/io/run_folder.h"

namespace caravan {
namespace {

/// What the holder wrote about itself, made fit for one line of a message.
std::string holder_of(int descriptor) {
  std::array<char, 200> bytes{};
  const ssize_t count = ::pread(descriptor, bytes.data(), bytes.size(), 0);
  std::string text(bytes.data(), count > 0 ? static_cast<std::size_t>(count) : 0);
  text.erase(std::find(text.begin(), text.end(), '\n'), text.end());
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return text.empty() ? "another process" : text;
}

enum class Attempt { kLocked, kHeld, kUnknownHere };

Attempt try_lock(int descriptor, const std::string& path) {
  int status = 0;
  do {
    status = ::flock(descriptor, LOCK_EX | LOCK_NB);
  } while (status != 0 && errno == EINTR);
  if (status == 0) {
    return Attempt::kLocked;
  }
  if (errno == EWOULDBLOCK) {
    return Attempt::kHeld;
  }
  if (errno == ENOLCK || errno == ENOSYS || errno == EOPNOTSUPP || errno == EINVAL || errno == EBADF) {
    log::warning(
        "{}: this file system knows no locks ({}); that two runs never share this folder is up to you", path,
        std::strerror(errno));
    return Attempt::kUnknownHere;
  }
  fail<IoError>("{}: cannot be locked: {}", path, std::strerror(errno));
}

/// The file may have been removed by its holder between our opening and our locking it.
bool is_still_there(int descriptor, const std::string& path) {
  struct stat ours {};
  struct stat there {};
  return ::fstat(descriptor, &ours) == 0 && ::stat(path.c_str(), &there) == 0 &&
         ours.st_ino == there.st_ino && ours.st_dev == there.st_dev;
}

}  // namespace

RunFolderLock::~RunFolderLock() {
  if (descriptor_ < 0) {
    return;
  }
  if (removes_file_) {
    ::unlink(path_.c_str());  // while it is locked: whoever opened it meanwhile sees that it is gone
  }
  ::close(descriptor_);
}

void RunFolderLock::take_if_present(const std::string& folder) {
  open_and_lock(folder, Missing::kLeave);
}

void RunFolderLock::take(const std::string& folder) {
  create_run_folder(folder);
  open_and_lock(folder, Missing::kCreate);
  removes_file_ = true;
  describe_holder();
}

void RunFolderLock::open_and_lock(const std::string& folder, Missing missing) {
  if (descriptor_ >= 0) {
    return;
  }
  path_ = (std::filesystem::path(folder) / kRunLockName).string();
  constexpr int kAttempts = 100;  // each needs another run that ends at this very moment
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | (missing == Missing::kCreate ? O_CREAT : 0);
    descriptor_ = ::open(path_.c_str(), flags, 0666);
    if (descriptor_ < 0) {
      if (missing == Missing::kLeave && (errno == ENOENT || errno == ENOTDIR)) {
        return;
      }
      fail<IoError>("{}: cannot be opened: {}", path_, std::strerror(errno));
    }
    const Attempt result = try_lock(descriptor_, path_);
    if (result == Attempt::kHeld) {
      const std::string holder = holder_of(descriptor_);
      ::close(std::exchange(descriptor_, -1));
      fail<ConfigError>("output.dir {} is in use by {}; wait for its end, or choose another output.dir",
                        folder, holder);
    }
    if (result == Attempt::kUnknownHere || is_still_there(descriptor_, path_)) {
      return;
    }
    ::close(std::exchange(descriptor_, -1));
  }
  fail<IoError>("{}: other runs keep creating and removing it; start again later", path_);
}

/// For the message of whoever comes second. A disk without room for these bytes will be noticed elsewhere.
void RunFolderLock::describe_holder() const {
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  const std::string text =
      fmt::format("process {} on {}, since {}\n", ::getpid(), host.data(), utc_timestamp());
  if (::ftruncate(descriptor_, 0) != 0 || ::pwrite(descriptor_, text.data(), text.size(), 0) < 0) {
    return;
  }
}

std::string run_lock_text(const std::string& folder) {
  const std::string path = (std::filesystem::path(folder) / kRunLockName).string();
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (descriptor < 0) {
    return "";
  }
  std::array<char, 512> bytes{};
  const ssize_t count = ::pread(descriptor, bytes.data(), bytes.size(), 0);
  ::close(descriptor);
  return {bytes.data(), count > 0 ? static_cast<std::size_t>(count) : 0};
}

}  // namespace caravan
