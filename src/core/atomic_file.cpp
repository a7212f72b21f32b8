#include "caravan/core/atomic_file.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <vector>

#include "caravan/core/error.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr int kAttempts = 100;  // of 62^6 names

[[noreturn]] void fail_with_errno(const std::string& path, const char* step, int code) {
  fail<IoError>("{}: cannot {}: {}; check the folder, its permissions and the free space", path, step,
                std::strerror(code));
}

/// Random, so that nobody who may write to the folder can put a link where the file will be, and two hosts
/// with one file system do not meet.
std::string random_name(const std::string& path) {
  constexpr std::string_view kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  std::array<unsigned char, 6> bytes{};
  if (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    fail_with_errno(path, "choose a temporary name", errno);
  }
  std::string name = path + ".tmp-";
  for (const unsigned char byte : bytes) {
    name += kLetters[byte % kLetters.size()];
  }
  return name;
}

/// `create` makes the name or sets errno.
std::string create_new(const std::string& path, const std::function<bool(const std::string&)>& create) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    std::string name = random_name(path);
    if (create(name)) {
      return name;
    }
    if (errno != EEXIST) {
      break;
    }
  }
  fail_with_errno(path, "be created", errno);
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

void write_and_sync(const TemporaryFile& file, const std::string& path, std::string_view bytes) {
  try {
    write_all(file.descriptor, path, bytes);
    if (::fsync(file.descriptor) != 0) {
      fail_with_errno(path, "sync", errno);
    }
  } catch (...) {
    ::close(file.descriptor);
    throw;
  }
  // Network file systems report a full disk only here.
  if (::close(file.descriptor) != 0) {
    fail_with_errno(path, "close", errno);
  }
}

}  // namespace

TemporaryFile create_temporary_file(const std::string& path) {
  TemporaryFile file;
  file.path = create_new(path, [&file](const std::string& name) {
    file.descriptor = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    return file.descriptor >= 0;
  });
  return file;
}

std::string create_temporary_folder(const std::string& path) {
  return create_new(path, [](const std::string& name) { return ::mkdir(name.c_str(), 0777) == 0; });
}

std::string folder_of(const std::string& path) {
  const fs::path parent = fs::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

void flush_folder(const std::string& path) {
  const int folder = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) {
    fail_with_errno(path, "open", errno);
  }
  const int status = ::fsync(folder);
  const int code = errno;
  ::close(folder);
  // Some file systems cannot sync a folder and say so; the rename itself has succeeded there.
  if (status != 0 && code != EINVAL && code != ENOTSUP) {
    fail_with_errno(path, "sync", code);
  }
}

void create_folders(const std::string& path) {
  std::vector<std::string> missing;
  std::error_code error;
  for (std::string folder = path; !folder.empty() && !fs::exists(folder, error); folder = folder_of(folder)) {
    missing.push_back(folder);
  }
  fs::create_directories(path, error);
  if (error) {
    fail<IoError>("{}: cannot be created: {}", path, error.message());
  }
  for (const std::string& folder : missing) {
    flush_folder(folder_of(folder));
  }
}

void write_file_atomically(const std::string& path, std::string_view bytes) {
  const TemporaryFile file = create_temporary_file(path);
  try {
    write_and_sync(file, path, bytes);
    if (std::rename(file.path.c_str(), path.c_str()) != 0) {
      fail_with_errno(path, "move the finished file into place", errno);
    }
  } catch (...) {
    ::unlink(file.path.c_str());
    throw;
  }
  flush_folder(folder_of(path));
}

}  // namespace caravan
