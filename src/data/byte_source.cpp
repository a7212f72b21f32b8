#include "caravan/data/byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "caravan/core/error.h"

namespace caravan {
namespace {

constexpr std::size_t kCompressedChunk = std::size_t{128} << 10;

class File {
 public:
  explicit File(std::string path) : path_(std::move(path)) {
    // Not blocking: opening a pipe without a writer must end in the error below, not in waiting.
    descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor_ < 0) {
      fail<IoError>("{}: cannot open the data file: {}", path_, std::strerror(errno));
    }
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
      ::close(descriptor_);
      fail<IoError>("{}: is {}; data files must be regular files, they are read more than once", path_,
                    S_ISDIR(status.st_mode) ? "a folder" : "not a regular file");
    }
    ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_SEQUENTIAL);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { ::close(descriptor_); }

  std::size_t read(char* target, std::size_t capacity) const {
    for (;;) {
      const ssize_t count = ::read(descriptor_, target, capacity);
      if (count >= 0) {
        return static_cast<std::size_t>(count);
      }
      if (errno != EINTR) {
        fail<IoError>("{}: reading failed: {}", path_, std::strerror(errno));
      }
    }
  }
  void seek(std::int64_t offset) const {
    if (::lseek(descriptor_, static_cast<off_t>(offset), SEEK_SET) < 0) {
      fail<IoError>("{}: cannot go to byte {}: {}", path_, offset, std::strerror(errno));
    }
  }
  FileStamp stamp() const {
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0) {
      fail<IoError>("{}: its size and time cannot be read: {}", path_, std::strerror(errno));
    }
    return {status.st_dev, status.st_ino, status.st_size,
            std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec};
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int descriptor_ = -1;
};

class PlainBytes : public ByteSource {
 public:
  explicit PlainBytes(std::unique_ptr<File> file) : file_(std::move(file)) {}
  std::size_t read(char* target, std::size_t capacity) override { return file_->read(target, capacity); }
  bool is_compressed() const override { return false; }
  FileStamp stamp() const override { return file_->stamp(); }
  void seek(std::int64_t offset) override { file_->seek(offset); }

 private:
  std::unique_ptr<File> file_;
};

class GzipBytes : public ByteSource {
 public:
  explicit GzipBytes(std::unique_ptr<File> file) : file_(std::move(file)), input_(kCompressedChunk) {
    constexpr int kGzipWindow = 15 + 16;  // zlib's way of saying: a gzip header, checksums verified
    CARAVAN_CHECK(inflateInit2(&stream_, kGzipWindow) == Z_OK, "zlib cannot be initialised");
  }
  ~GzipBytes() override { inflateEnd(&stream_); }

  std::size_t read(char* target, std::size_t capacity) override {
    // zlib counts in unsigned int.
    const auto room = static_cast<uInt>(std::min(capacity, std::size_t{1} << 30U));
    stream_.next_out = reinterpret_cast<Bytef*>(target);
    stream_.avail_out = room;
    while (stream_.avail_out == room && !is_finished_) {
      if (stream_.avail_in == 0) {
        refill();
      }
      if (is_between_members_) {
        begin_member();
      } else {
        inflate_some();
      }
    }
    return room - stream_.avail_out;
  }
  bool is_compressed() const override { return true; }
  FileStamp stamp() const override { return file_->stamp(); }
  void seek(std::int64_t offset) override {
    CARAVAN_CHECK(false, "{}: seek to {} in a gzip file", file_->path(), offset);
  }

 private:
  void refill() {
    const std::size_t count = file_->read(reinterpret_cast<char*>(input_.data()), input_.size());
    stream_.next_in = input_.data();
    stream_.avail_in = static_cast<uInt>(count);
    if (count == 0) {
      if (!is_between_members_) {
        fail<IoError>("{}: the gzip file is truncated: it ends within compressed data", file_->path());
      }
      is_finished_ = true;
    }
  }
  // After a member's end: another member, padding with zeros (as tapes and some tools leave it), or garbage.
  void begin_member() {
    while (stream_.avail_in > 0 && *stream_.next_in == 0) {
      ++stream_.next_in;
      --stream_.avail_in;
    }
    if (stream_.avail_in > 0) {
      CARAVAN_CHECK(inflateReset(&stream_) == Z_OK, "zlib cannot be reset");
      is_between_members_ = false;
    }
  }
  void inflate_some() {
    const int status = inflate(&stream_, Z_NO_FLUSH);
    if (status == Z_STREAM_END) {
      is_between_members_ = true;
    } else if (status != Z_OK && status != Z_BUF_ERROR) {
      fail<IoError>("{}: the gzip file is damaged: {}", file_->path(),
                    stream_.msg != nullptr ? stream_.msg : "not a gzip stream");
    }
  }

  std::unique_ptr<File> file_;
  std::vector<Bytef> input_;
  z_stream stream_{};
  bool is_between_members_ = false;
  bool is_finished_ = false;
};

}  // namespace

std::unique_ptr<ByteSource> open_bytes(const std::string& path) {
  auto file = std::make_unique<File>(path);
  std::array<char, 2> magic{};
  const std::size_t count = file->read(magic.data(), magic.size());
  file->seek(0);
  if (count == 2 && magic[0] == '\x1f' && magic[1] == '\x8b') {
    return std::make_unique<GzipBytes>(std::move(file));
  }
  return std::make_unique<PlainBytes>(std::move(file));
}

}  // namespace caravan
