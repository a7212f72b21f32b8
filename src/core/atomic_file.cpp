#include "caravan/core/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "caravan/core/error.h"

namespace caravan {
namespace {

[[noreturn]] void fail_with_errno(const std::string& path, const char* step, int code) {
  fail<IoError>("{}: cannot {}: {}; check the folder, its permissions and the free space", path, step,
                std::strerror(code));
}

void write_all(int file, const std::string& path, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(file, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written < 0) {
      fail_with_errno(path, "write", errno);
    }
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
}

void write_and_sync(const std::string& path, std::string_view bytes) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file < 0) {
    fail_with_errno(path, "create", errno);
  }
  try {
    write_all(file, path, bytes);
    if (::fsync(file) != 0) {
      fail_with_errno(path, "sync", errno);
    }
  } catch (...) {
    ::close(file);
    throw;
  }
  // Network file systems report a full disk only here.
  if (::close(file) != 0) {
    fail_with_errno(path, "close", errno);
  }
}

void sync_folder(const std::string& path) {
  const int folder = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) {
    fail_with_errno(path, "open", errno);
  }
  const int status = ::fsync(folder);
  const int code = errno;
  ::close(folder);
  // Some file systems cannot sync a folder and say EINVAL; the rename itself has succeeded there.
  if (status != 0 && code != EINVAL) {
    fail_with_errno(path, "sync", code);
  }
}

}  // namespace

void write_file_atomically(const std::string& path, std::string_view bytes) {
  const std::filesystem::path target(path);
  const std::filesystem::path folder = target.has_parent_path() ? target.parent_path() : ".";
  const std::string temporary = fmt::format("{}.{}.tmp", path, ::getpid());
  try {
    write_and_sync(temporary, bytes);
    if (std::rename(temporary.c_str(), path.c_str()) != 0) {
      fail_with_errno(path, "move the finished file into place", errno);
    }
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_folder(folder.string());
}

}  // namespace caravan
