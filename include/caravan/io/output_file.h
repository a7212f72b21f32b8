// Large files and folders that appear complete or not at all: written beside their place under a temporary
// name, flushed to the disk, then renamed. Whatever ends early (an exception, a full disk) leaves nothing
// behind. Small files that are in memory anyway: core/atomic_file.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace caravan {

/// What to do when the target is there already.
enum class IfExists : std::uint8_t { kFail, kReplace };

/// Between the name of a folder that is being replaced and six letters, on file systems that cannot exchange
/// two names in one step.
inline constexpr const char* kReplacedSuffix = ".old-";

class BackgroundWriter;

class OutputFile {
 public:
  /// Creates `path`.tmp-XXXXXX; the folder must exist. IoError otherwise.
  explicit OutputFile(std::string path);
  /// Removes the temporary file unless commit() was called.
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  OutputFile(OutputFile&&) = delete;
  OutputFile& operator=(OutputFile&&) = delete;

  const std::string& path() const { return path_; }
  /// Bytes written so far.
  std::int64_t position() const { return position_; }
  /// Appends, on a thread of its own where the file is large, through at most 24 MiB of memory. IoError with
  /// the system's reason (disk full, quota), here, at a later call or at commit().
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  /// Replaces bytes written before; they are changed at commit().
  void overwrite(std::int64_t offset, std::span<const std::byte> bytes);
  /// Flushes to the disk and renames to `path`, replacing what is there.
  void commit();

 private:
  struct Patch {
    std::int64_t offset = 0;
    std::vector<std::byte> bytes;
  };

  void submit();
  void write_block(std::int64_t offset, std::span<const std::byte> bytes);
  void write_at(std::int64_t offset, std::span<const std::byte> bytes) const;

  std::string path_;
  std::string temporary_;
  std::int64_t position_ = 0;
  int direct_ = -1;  // the same file without the page cache, for the writer's thread
  bool is_direct_tried_ = false;
  std::unique_ptr<BackgroundWriter> writer_;
  std::size_t filled_ = 0;      // bytes of the writer's block
  std::vector<Patch> patches_;  // what overwrite() was given
  int descriptor_ = -1;
};

class OutputFolder {
 public:
  /// Creates `path`.tmp-XXXXXX and the folders above it. IoError when `path` exists and `if_exists` is kFail.
  OutputFolder(std::string path, IfExists if_exists);
  /// Removes the temporary folder and what is in it unless commit() was called.
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;
  OutputFolder(OutputFolder&&) = delete;
  OutputFolder& operator=(OutputFolder&&) = delete;

  /// The folder while it is being written.
  const std::string& temporary_path() const { return temporary_; }
  /// Where `name` is to be written now.
  std::string file(std::string_view name) const;
  /// Flushes the folder and exchanges it with an older one at its place, which is removed only afterwards.
  void commit();

 private:
  void check_target() const;
  std::string swap_into_place();

  std::string path_;
  std::string temporary_;
  IfExists if_exists_;
  bool is_committed_ = false;
};

}  // namespace caravan
