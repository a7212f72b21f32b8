#include "caravan/io/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "caravan/core/error.h"
#include "caravan/io/checkpoint_files.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxBytesPerCall = std::size_t{1} << 30U;

mode_t current_umask() {
  const mode_t mask = ::umask(0);
  ::umask(mask);
  return mask;
}

std::string parent_of(const std::string& path) {
  const fs::path parent = fs::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

/// Makes the names in a folder survive a power cut. Some network file systems cannot; that is no error.
void flush_folder(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) {
    fail<IoError>("{}: cannot be opened: {}", path, std::strerror(errno));
  }
  const int status = ::fsync(descriptor);
  const int reason = errno;
  ::close(descriptor);
  if (status != 0 && reason != EINVAL && reason != ENOTSUP) {
    fail<IoError>("{}: flushing to the disk failed: {}", path, std::strerror(reason));
  }
}

/// "runs/a/" and "runs/a" are the same folder, but "runs/a/.tmp" is not beside it.
std::string without_trailing_slash(std::string path) {
  while (path.size() > 1 && path.back() == '/') {
    path.pop_back();
  }
  return path;
}

}  // namespace

OutputFile::OutputFile(std::string path) : path_(std::move(path)), temporary_(path_ + ".tmp-XXXXXX") {
  descriptor_ = ::mkostemp(temporary_.data(), O_CLOEXEC);
  if (descriptor_ < 0) {
    fail<IoError>("{}: cannot be created: {}", path_, std::strerror(errno));
  }
  ::fchmod(descriptor_, 0666 & ~current_umask());
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
    ::unlink(temporary_.c_str());
  }
}

void OutputFile::write(std::span<const std::byte> bytes) {
  write_at(position_, bytes);
  position_ += static_cast<std::int64_t>(bytes.size());
}

void OutputFile::write(std::string_view text) {
  write(std::as_bytes(std::span(text)));
}

void OutputFile::overwrite(std::int64_t offset, std::span<const std::byte> bytes) {
  CARAVAN_CHECK(offset >= 0 && offset + static_cast<std::int64_t>(bytes.size()) <= position_,
                "overwrite of {} bytes at {} of {}", bytes.size(), offset, position_);
  write_at(offset, bytes);
}

void OutputFile::write_at(std::int64_t offset, std::span<const std::byte> bytes) {
  CARAVAN_CHECK(descriptor_ >= 0, "{} written after commit", path_);
  while (!bytes.empty()) {
    const ssize_t done =
        ::pwrite(descriptor_, bytes.data(), std::min(bytes.size(), kMaxBytesPerCall), offset);
    if (done < 0 && errno == EINTR) {
      continue;
    }
    if (done <= 0) {
      fail<IoError>("{}: writing at byte {} failed: {}", path_, offset,
                    done < 0 ? std::strerror(errno) : "nothing was written");
    }
    offset += done;
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
}

void OutputFile::commit() {
  CARAVAN_CHECK(descriptor_ >= 0, "{} committed twice", path_);
  if (::fsync(descriptor_) != 0) {
    fail<IoError>("{}: flushing to the disk failed: {}", path_, std::strerror(errno));
  }
  const int status = ::close(descriptor_);
  const int close_reason = errno;
  descriptor_ = -1;
  if (status != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int reason = status != 0 ? close_reason : errno;
    ::unlink(temporary_.c_str());
    fail<IoError>("{}: finishing the file failed: {}", path_, std::strerror(reason));
  }
  flush_folder(parent_of(path_));
}

OutputFolder::OutputFolder(std::string path, IfExists if_exists)
    : path_(without_trailing_slash(std::move(path))),
      temporary_(path_ + ".tmp-XXXXXX"),
      if_exists_(if_exists) {
  check_target();
  std::error_code error;
  fs::create_directories(parent_of(path_), error);
  if (error) {
    fail<IoError>("{}: cannot be created: {}", parent_of(path_), error.message());
  }
  if (::mkdtemp(temporary_.data()) == nullptr) {
    fail<IoError>("{}: cannot be created: {}", path_, std::strerror(errno));
  }
  ::chmod(temporary_.c_str(), 0777 & ~current_umask());
}

OutputFolder::~OutputFolder() {
  if (!is_committed_) {
    std::error_code ignored;  // nothing better can be done while another error is on its way
    fs::remove_all(temporary_, ignored);
  }
}

std::string OutputFolder::file(std::string_view name) const {
  return temporary_ + "/" + std::string(name);
}

void OutputFolder::check_target() const {
  std::error_code error;
  if (if_exists_ == IfExists::kFail && fs::exists(fs::symlink_status(path_, error))) {
    fail<IoError>("{}: exists already; choose another folder or allow overwriting", path_);
  }
  if (if_exists_ == IfExists::kReplace && fs::exists(fs::symlink_status(path_, error))) {
    if (const std::string foreign = foreign_entry(path_); !foreign.empty()) {
      fail<IoError>("{}: is not replaced, because {} is no file of a checkpoint; choose another folder",
                    path_, foreign);
    }
  }
}

void OutputFolder::commit() {
  flush_folder(temporary_);
  check_target();
  std::string replaced;
  if (::access(path_.c_str(), F_OK) == 0) {
    replaced = path_ + ".old-" + temporary_.substr(temporary_.size() - 6);
    if (::rename(path_.c_str(), replaced.c_str()) != 0) {
      fail<IoError>("{}: the older folder cannot be moved aside: {}", path_, std::strerror(errno));
    }
  }
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int reason = errno;
    if (!replaced.empty()) {
      ::rename(replaced.c_str(), path_.c_str());
    }
    fail<IoError>("{}: the finished folder cannot be renamed to its place: {}", path_, std::strerror(reason));
  }
  is_committed_ = true;
  flush_folder(parent_of(path_));
  if (!replaced.empty()) {
    std::error_code error;
    fs::remove_all(replaced, error);
    if (error) {
      fail<IoError>("{}: the older folder cannot be removed: {}", replaced, error.message());
    }
  }
}

}  // namespace caravan
