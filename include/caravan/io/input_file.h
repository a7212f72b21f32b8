// A file opened for reading at any position. Positions and sizes are checked here once, so that readers of
// hostile files never touch memory or offsets outside the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace caravan {

class InputFile {
 public:
  /// Opens a regular file; IoError with the system's reason otherwise.
  explicit InputFile(std::string path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  InputFile(InputFile&&) = delete;
  InputFile& operator=(InputFile&&) = delete;

  const std::string& path() const { return path_; }
  std::int64_t size() const { return size_; }
  /// Fills `destination` from byte `offset` on; IoError when the file has fewer bytes. Safe from several
  /// threads at once.
  void read_at(std::int64_t offset, std::span<std::byte> destination) const;
  /// As read_at, for a few bytes far from all else: where they were not in the page cache, they and the 64
  /// KiB behind them are not left there. A page alone in the midst of a file ends the reading ahead of
  /// whoever comes by later in the file's order.
  void read_alone(std::int64_t offset, std::span<std::byte> destination) const;

 private:
  void check_range(std::int64_t offset, std::int64_t bytes) const;

  std::string path_;
  std::int64_t size_ = 0;
  int descriptor_ = -1;
};

}  // namespace caravan
