// The bytes of a data file, decompressed when it is gzip. Knows nothing of lines.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace caravan {

/// What tells one content of a file from another without reading it. Equal for one and the same file that
/// nobody wrote to.
struct FileStamp {
  std::uint64_t device = 0;
  std::uint64_t number = 0;  // inode: another file under the same name has another one
  std::int64_t size = 0;
  std::int64_t modified_ns = 0;

  friend bool operator==(const FileStamp&, const FileStamp&) = default;
};

class ByteSource {
 public:
  ByteSource() = default;
  ByteSource(const ByteSource&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;
  virtual ~ByteSource() = default;

  /// Fills up to `capacity` bytes at `target` and returns how many; 0 only at the end. Throws IoError when
  /// the file cannot be read or, for gzip, is truncated or damaged.
  virtual std::size_t read(char* target, std::size_t capacity) = 0;
  virtual bool is_compressed() const = 0;
  /// Of the open file, now.
  virtual FileStamp stamp() const = 0;
  /// The next read starts at byte `offset` of the file. Plain files only (InternalError otherwise).
  virtual void seek(std::int64_t offset) = 0;
};

/// Opens a regular file; gzip is known by its first two bytes, whatever the name, and may have several
/// members. Throws IoError for a missing file, a directory, or anything that is not a regular file (data
/// files are read more than once).
std::unique_ptr<ByteSource> open_bytes(const std::string& path);

}  // namespace caravan
