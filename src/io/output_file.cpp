#include "caravan/io/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "background_writer.h"
#include "caravan/core/atomic_file.h"
#include "caravan/core/error.h"
#include "caravan/io/checkpoint_files.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxBytesPerCall = std::size_t{1} << 30U;
/// "runs/a/" and "runs/a" are the same folder, but "runs/a/.tmp" is not beside it.
std::string without_trailing_slash(std::string path) {
  while (path.size() > 1 && path.back() == '/') {
    path.pop_back();
  }
  return path;
}

}  // namespace

OutputFile::OutputFile(std::string path) : path_(std::move(path)) {
  TemporaryFile file = create_temporary_file(path_);
  temporary_ = std::move(file.path);
  descriptor_ = file.descriptor;
  writer_ = std::make_unique<BackgroundWriter>(
      [this](std::int64_t offset, std::span<const std::byte> bytes) { write_block(offset, bytes); });
}

OutputFile::~OutputFile() {
  writer_.reset();
  if (direct_ >= 0) {
    ::close(direct_);
  }
  if (descriptor_ >= 0) {
    ::close(descriptor_);
    ::unlink(temporary_.c_str());
  }
}

void OutputFile::write(std::span<const std::byte> bytes) {
  CARAVAN_CHECK(descriptor_ >= 0, "{} written after commit", path_);
  while (!bytes.empty()) {
    const std::span<std::byte> block = writer_->block();
    const std::size_t now = std::min(bytes.size(), block.size() - filled_);
    std::memcpy(block.data() + filled_, bytes.data(), now);
    filled_ += now;
    position_ += static_cast<std::int64_t>(now);
    bytes = bytes.subspan(now);
    if (filled_ == block.size()) {
      submit();
    }
  }
}

void OutputFile::write(std::string_view text) {
  write(std::as_bytes(std::span(text)));
}

void OutputFile::overwrite(std::int64_t offset, std::span<const std::byte> bytes) {
  CARAVAN_CHECK(offset >= 0 && offset + static_cast<std::int64_t>(bytes.size()) <= position_,
                "overwrite of {} bytes at {} of {}", bytes.size(), offset, position_);
  patches_.push_back({offset, {bytes.begin(), bytes.end()}});
}

void OutputFile::submit() {
  writer_->submit(position_ - static_cast<std::int64_t>(filled_), filled_);
  filled_ = 0;
}

// On the writer's thread. Whole blocks go past the page cache: copied there, gigabytes wait for the flush at
// the end, and their memory is taken from what is read again. Where a file system has no such way, each block
// is handed to the disk at once.
void OutputFile::write_block(std::int64_t offset, std::span<const std::byte> bytes) {
  const bool is_whole = bytes.size() == BackgroundWriter::kBlockBytes;
  if (is_whole && !is_direct_tried_) {
    is_direct_tried_ = true;
    direct_ = ::open(temporary_.c_str(), O_WRONLY | O_DIRECT | O_NOFOLLOW | O_CLOEXEC);
  }
  if (is_whole && direct_ >= 0) {
    const ssize_t done = ::pwrite(direct_, bytes.data(), bytes.size(), offset);
    if (done == static_cast<ssize_t>(bytes.size())) {
      return;
    }
  }
  // Cut short or refused: the usual way does it or says why not.
  write_at(offset, bytes);
  ::sync_file_range(descriptor_, offset, static_cast<off64_t>(bytes.size()), SYNC_FILE_RANGE_WRITE);
}

void OutputFile::write_at(std::int64_t offset, std::span<const std::byte> bytes) const {
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
  if (filled_ > 0) {
    submit();
  }
  writer_->drain();
  for (const Patch& patch : patches_) {
    write_at(patch.offset, patch.bytes);
  }
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
  flush_folder(folder_of(path_));
}

OutputFolder::OutputFolder(std::string path, IfExists if_exists)
    : path_(without_trailing_slash(std::move(path))), if_exists_(if_exists) {
  check_target();
  create_folders(folder_of(path_));
  temporary_ = create_temporary_folder(path_);
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
  const std::string replaced = swap_into_place();
  is_committed_ = true;
  flush_folder(folder_of(path_));
  if (!replaced.empty()) {
    std::error_code error;
    fs::remove_all(replaced, error);
    if (error) {
      fail<IoError>("{}: the older folder cannot be removed: {}", replaced, error.message());
    }
  }
}

// In one step where the file system can exchange two names: whatever happens, a whole folder is at path_.
std::string OutputFolder::swap_into_place() {
  const bool is_there = ::access(path_.c_str(), F_OK) == 0;
  if (is_there && ::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) == 0) {
    return temporary_;
  }
  std::string replaced;
  if (is_there) {
    replaced = path_ + kReplacedSuffix + temporary_.substr(temporary_.size() - 6);
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
  return replaced;
}

}  // namespace caravan
