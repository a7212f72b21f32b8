// Writes a ZIP archive of stored members whose payloads begin at multiples of 64 bytes, as torch.save does,
// so that readers may map them into memory. Payloads are streamed; ZIP64 where a size or offset needs it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/io/output_file.h"

namespace caravan {

class ZipWriter {
 public:
  /// `file` must outlive this; the caller commits it after finish().
  explicit ZipWriter(OutputFile& file) : file_(file) {}

  /// Begins a member of exactly `size` bytes.
  void begin(const std::string& name, std::int64_t size);
  void write(std::span<const std::byte> bytes);
  /// InternalError when not all bytes of the member were written.
  void end();
  /// A whole small member.
  void add(const std::string& name, std::string_view content);
  /// The directory; nothing can be added afterwards.
  void finish();

 private:
  struct Entry {
    std::string name;
    std::uint64_t size = 0;
    std::uint64_t local_offset = 0;
    std::uint32_t crc = 0;
  };

  OutputFile& file_;
  std::vector<Entry> entries_;
  std::uint64_t left_ = 0;
};

}  // namespace caravan
