// Lines of a plain or gzip file, one at a time, in bounded memory.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/data/byte_source.h"

namespace caravan {

/// Longest line accepted: far above any document, far below what would endanger the machine (a gzip bomb is
/// one endless line).
inline constexpr std::int64_t kMaxLineBytes = std::int64_t{64} << 20;

/// Lines end with \n or \r\n; the last one may lack its end. A UTF-8 byte order mark at the beginning is
/// dropped. Memory: one buffer of 256 KiB, or of the longest line so far while that line is read.
class LineSource {
 public:
  /// Opens `path` as open_bytes does; throws IoError.
  explicit LineSource(std::string path, std::int64_t max_line_bytes = kMaxLineBytes);

  /// The next line without its end, valid until the next call; false at the end of the file. Throws IoError
  /// naming file and line for a line above the limit, and for a file that is damaged or cannot be read.
  bool next(std::string_view& line);

  /// Number of the line that next() gave last, from 1.
  std::int64_t line_number() const { return line_number_; }
  /// Where that line begins: byte of the file (decompressed, for gzip).
  std::int64_t line_offset() const { return line_offset_; }
  bool is_compressed() const { return bytes_->is_compressed(); }
  FileStamp stamp() const { return bytes_->stamp(); }
  const std::string& path() const { return path_; }

  /// The next line is the one that begins at byte `offset` and has this number. Plain files only.
  void seek(std::int64_t offset, std::int64_t line_number);

 private:
  bool fill();
  void make_room();
  bool emit(std::size_t length, std::size_t consumed, std::string_view& line);

  std::string path_;
  std::int64_t max_line_bytes_;
  std::unique_ptr<ByteSource> bytes_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0;  // of the bytes not yet given out
  std::size_t end_ = 0;
  std::int64_t next_offset_ = 0;  // of buffer_[begin_] in the file
  std::int64_t line_offset_ = 0;
  std::int64_t line_number_ = 0;
};

}  // namespace caravan
