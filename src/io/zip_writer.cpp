#include "caravan/io/zip_writer.h"

#include <zlib.h>

#include <array>

#include "caravan/core/error.h"
#include "caravan/core/narrow.h"
#include "little_endian.h"

namespace caravan {
namespace {

constexpr std::uint64_t kAlignment = 64;
constexpr std::uint32_t kSaturated32 = 0xFFFFFFFF;
constexpr std::uint16_t kZip64Version = 45;
constexpr std::uint16_t kUtf8Names = 1U << 11U;
constexpr std::uint16_t kNewYear1980 = 0x21;  // MS-DOS date: archives do not depend on when they were written

std::uint32_t saturate(std::uint64_t value) {
  return value >= kSaturated32 ? kSaturated32 : static_cast<std::uint32_t>(value);
}

/// Fields 4 to 28 are the same in local headers and directory entries.
void append_common(std::string& out, std::uint32_t crc, std::uint64_t size, std::size_t name_bytes,
                   std::size_t extra_bytes) {
  append_little_endian<std::uint16_t>(out, kZip64Version);
  append_little_endian<std::uint16_t>(out, kUtf8Names);
  append_little_endian<std::uint16_t>(out, 0);  // stored
  append_little_endian<std::uint16_t>(out, 0);  // time
  append_little_endian<std::uint16_t>(out, kNewYear1980);
  append_little_endian<std::uint32_t>(out, crc);
  append_little_endian<std::uint32_t>(out, saturate(size));
  append_little_endian<std::uint32_t>(out, saturate(size));
  append_little_endian<std::uint16_t>(out, narrow<std::uint16_t>(name_bytes));
  append_little_endian<std::uint16_t>(out, narrow<std::uint16_t>(extra_bytes));
}

void append_zip64(std::string& extra, std::initializer_list<std::uint64_t> values) {
  append_little_endian<std::uint16_t>(extra, 1);
  append_little_endian<std::uint16_t>(extra, static_cast<std::uint16_t>(8 * values.size()));
  for (const std::uint64_t value : values) {
    append_little_endian<std::uint64_t>(extra, value);
  }
}

}  // namespace

void ZipWriter::begin(const std::string& name, std::int64_t size) {
  CARAVAN_CHECK(left_ == 0 && size >= 0, "member {} of {} bytes begun with {} bytes open", name, size, left_);
  const auto offset = static_cast<std::uint64_t>(file_.position());
  Entry entry{name, static_cast<std::uint64_t>(size), offset, 0};
  std::string extra;
  if (entry.size >= kSaturated32) {
    append_zip64(extra, {entry.size, entry.size});
  }
  const std::uint64_t unpadded = offset + 30 + name.size() + extra.size() + 4;
  const std::uint64_t padding = (kAlignment - unpadded % kAlignment) % kAlignment;
  extra += "FB";
  append_little_endian<std::uint16_t>(extra, static_cast<std::uint16_t>(padding));
  extra.append(padding, 'Z');
  std::string header = "PK\x03\x04";
  append_common(header, 0, entry.size, name.size(), extra.size());
  file_.write(header + name + extra);
  entry.crc = static_cast<std::uint32_t>(::crc32_z(0, nullptr, 0));
  left_ = entry.size;
  entries_.push_back(std::move(entry));
}

void ZipWriter::write(std::span<const std::byte> bytes) {
  CARAVAN_CHECK(bytes.size() <= left_, "{} bytes written, {} left in the member", bytes.size(), left_);
  Entry& entry = entries_.back();
  entry.crc = static_cast<std::uint32_t>(
      ::crc32_z(entry.crc, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()));
  file_.write(bytes);
  left_ -= bytes.size();
}

void ZipWriter::end() {
  CARAVAN_CHECK(left_ == 0, "{} bytes of the member were not written", left_);
  const Entry& entry = entries_.back();
  std::array<std::byte, 4> crc{};
  for (std::size_t i = 0; i < crc.size(); ++i) {
    crc[i] = static_cast<std::byte>(entry.crc >> (8 * i) & 0xFFU);
  }
  file_.overwrite(static_cast<std::int64_t>(entry.local_offset) + 14, crc);
}

void ZipWriter::add(const std::string& name, std::string_view content) {
  begin(name, static_cast<std::int64_t>(content.size()));
  write(std::as_bytes(std::span(content)));
  end();
}

void ZipWriter::finish() {
  const auto start = static_cast<std::uint64_t>(file_.position());
  std::string out;
  for (const Entry& entry : entries_) {
    std::string extra;
    const bool is_large = entry.size >= kSaturated32;
    const bool is_far = entry.local_offset >= kSaturated32;
    if (is_large && is_far) {
      append_zip64(extra, {entry.size, entry.size, entry.local_offset});
    } else if (is_large) {
      append_zip64(extra, {entry.size, entry.size});
    } else if (is_far) {
      append_zip64(extra, {entry.local_offset});
    }
    out += "PK\x01\x02";
    append_little_endian<std::uint16_t>(out, kZip64Version);
    append_common(out, entry.crc, entry.size, entry.name.size(), extra.size());
    out.append(10, '\0');  // no comment, disk 0, no attributes
    append_little_endian<std::uint32_t>(out, saturate(entry.local_offset));
    out += entry.name + extra;
  }
  const std::uint64_t size = out.size();
  const std::uint64_t count = entries_.size();
  out += "PK\x06\x06";
  append_little_endian<std::uint64_t>(out, 44);  // bytes of this record after this field
  append_little_endian<std::uint16_t>(out, kZip64Version);
  append_little_endian<std::uint16_t>(out, kZip64Version);
  out.append(8, '\0');
  for (const std::uint64_t value : {count, count, size, start}) {
    append_little_endian<std::uint64_t>(out, value);
  }
  out.append("PK\x06\x07\0\0\0\0", 8);
  append_little_endian<std::uint64_t>(out, start + size);
  append_little_endian<std::uint32_t>(out, 1);
  out.append("PK\x05\x06\0\0\0\0", 8);
  const auto short_count = static_cast<std::uint16_t>(count >= 0xFFFF ? 0xFFFF : count);
  append_little_endian<std::uint16_t>(out, short_count);
  append_little_endian<std::uint16_t>(out, short_count);
  append_little_endian<std::uint32_t>(out, saturate(size));
  append_little_endian<std::uint32_t>(out, saturate(start));
  append_little_endian<std::uint16_t>(out, 0);
  file_.write(out);
}

}  // namespace caravan
