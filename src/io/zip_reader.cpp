#include "caravan/io/zip_reader.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <span>

#include "caravan/core/error.h"
#include "caravan/core/excerpt.h"
#include "little_endian.h"

namespace caravan {
namespace {

constexpr std::uint32_t kLocalHeader = 0x04034B50;
constexpr std::uint32_t kDirectoryEntry = 0x02014B50;
constexpr std::uint32_t kEnd = 0x06054B50;
constexpr std::uint32_t kZip64End = 0x06064B50;
constexpr std::uint32_t kZip64Locator = 0x07064B50;
constexpr std::int64_t kLocalHeaderBytes = 30;
constexpr std::size_t kEntryBytes = 46;
constexpr std::size_t kEndBytes = 22;
constexpr std::int64_t kZip64EndBytes = 56;
constexpr std::int64_t kLocatorBytes = 20;
constexpr std::int64_t kMaxEndSearch = 65557;  // the end record and the longest comment
constexpr std::uint64_t kMaxDirectoryBytes = std::uint64_t{256} << 20U;
constexpr std::uint32_t kSaturated32 = 0xFFFFFFFF;
constexpr std::uint16_t kSaturated16 = 0xFFFF;

struct Directory {
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
  std::uint64_t entries = 0;
};

[[noreturn]] void damaged(const InputFile& file, const std::string& what) {
  fail<IoError>("{}: damaged ZIP archive: {}", file.path(), what);
}

std::vector<std::byte> read_bytes(const InputFile& file, std::int64_t offset, std::int64_t size) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(size));
  file.read_at(offset, bytes);
  return bytes;
}

Directory read_zip64_end(const InputFile& file, std::int64_t end_offset) {
  const std::int64_t locator_offset = end_offset - kLocatorBytes;
  if (locator_offset < 0) {
    damaged(file, "no ZIP64 locator before the end record");
  }
  const auto locator = read_bytes(file, locator_offset, kLocatorBytes);
  const auto record_offset = load_little_endian<std::uint64_t>(locator, 8);
  if (load_little_endian<std::uint32_t>(locator, 0) != kZip64Locator ||
      static_cast<std::uint64_t>(locator_offset) < static_cast<std::uint64_t>(kZip64EndBytes) ||
      record_offset > static_cast<std::uint64_t>(locator_offset - kZip64EndBytes)) {
    damaged(file, "the ZIP64 locator is missing or points outside the file");
  }
  const auto record = read_bytes(file, static_cast<std::int64_t>(record_offset), kZip64EndBytes);
  if (load_little_endian<std::uint32_t>(record, 0) != kZip64End ||
      load_little_endian<std::uint32_t>(record, 16) != 0 ||
      load_little_endian<std::uint32_t>(record, 20) != 0) {
    damaged(file, "the ZIP64 end record is not where the locator says, or names several disks");
  }
  return {load_little_endian<std::uint64_t>(record, 48), load_little_endian<std::uint64_t>(record, 40),
          load_little_endian<std::uint64_t>(record, 32)};
}

Directory find_directory(const InputFile& file) {
  const std::int64_t tail_size = std::min(file.size(), kMaxEndSearch);
  const auto tail = read_bytes(file, file.size() - tail_size, tail_size);
  for (std::size_t at = tail.size() < kEndBytes ? 0 : tail.size() - kEndBytes + 1; at-- > 0;) {
    if (load_little_endian<std::uint32_t>(tail, at) != kEnd ||
        at + kEndBytes + load_little_endian<std::uint16_t>(tail, at + 20) != tail.size()) {
      continue;
    }
    const auto disk = load_little_endian<std::uint16_t>(tail, at + 4);
    Directory directory{load_little_endian<std::uint32_t>(tail, at + 16),
                        load_little_endian<std::uint32_t>(tail, at + 12),
                        load_little_endian<std::uint16_t>(tail, at + 10)};
    const std::int64_t end_offset = file.size() - tail_size + static_cast<std::int64_t>(at);
    if (directory.offset == kSaturated32 || directory.size == kSaturated32 ||
        directory.entries == kSaturated16 || disk == kSaturated16) {
      directory = read_zip64_end(file, end_offset);
    } else if (disk != 0) {
      damaged(file, "it is split over several disks");
    }
    const auto end = static_cast<std::uint64_t>(end_offset);
    if (directory.size > end || directory.offset > end - directory.size ||
        directory.entries > directory.size / kEntryBytes || directory.size > kMaxDirectoryBytes) {
      damaged(file, fmt::format("a directory of {} entries, {} bytes at {} is impossible in {} bytes",
                                directory.entries, directory.size, directory.offset, file.size()));
    }
    return directory;
  }
  damaged(file, "no end record; the file is cut short or not a ZIP archive");
}

/// One entry of the central directory; sizes and offsets come from here only, since local headers may hold
/// zeros (a data descriptor follows the data).
struct Entry {
  std::string name;
  std::uint64_t stored_size = 0;
  std::uint64_t size = 0;
  std::uint64_t local_offset = 0;
};

class DirectoryParser {
 public:
  DirectoryParser(const InputFile& file, std::span<const std::byte> bytes) : file_(file), bytes_(bytes) {}

  Entry next() {
    need(kEntryBytes);
    const std::span<const std::byte> head = bytes_.subspan(at_, kEntryBytes);
    if (load_little_endian<std::uint32_t>(head, 0) != kDirectoryEntry) {
      damaged(file_, fmt::format("no directory entry at byte {} of the directory", at_));
    }
    const std::size_t name_bytes = load_little_endian<std::uint16_t>(head, 28);
    const std::size_t extra_bytes = load_little_endian<std::uint16_t>(head, 30);
    const std::size_t comment_bytes = load_little_endian<std::uint16_t>(head, 32);
    need(kEntryBytes + name_bytes + extra_bytes + comment_bytes);
    Entry entry;
    entry.name.assign(reinterpret_cast<const char*>(bytes_.data()) + at_ + kEntryBytes, name_bytes);
    check_name(entry.name);
    check_head(head, entry.name);
    entry.stored_size = load_little_endian<std::uint32_t>(head, 20);
    entry.size = load_little_endian<std::uint32_t>(head, 24);
    entry.local_offset = load_little_endian<std::uint32_t>(head, 42);
    apply_zip64(entry, bytes_.subspan(at_ + kEntryBytes + name_bytes, extra_bytes));
    at_ += kEntryBytes + name_bytes + extra_bytes + comment_bytes;
    if (entry.stored_size != entry.size) {
      damaged(file_, fmt::format("member '{}' is stored but has two sizes, {} and {}", entry.name,
                                 entry.stored_size, entry.size));
    }
    return entry;
  }

 private:
  void need(std::size_t bytes) const {
    if (bytes > bytes_.size() - at_) {
      damaged(file_, "the directory ends inside an entry");
    }
  }

  void check_head(std::span<const std::byte> head, const std::string& name) const {
    const auto flags = load_little_endian<std::uint16_t>(head, 8);
    const auto method = load_little_endian<std::uint16_t>(head, 10);
    if ((flags & 1U) != 0) {
      fail<IoError>("{}: member '{}' is encrypted", file_.path(), name);
    }
    if (method != 0) {
      fail<IoError>(
          "{}: member '{}' is compressed (method {}); only stored members are read, as torch.save writes "
          "them "
          "(TorchScript archives have others)",
          file_.path(), name, method);
    }
    const auto disk = load_little_endian<std::uint16_t>(head, 34);
    if (disk != 0 && disk != kSaturated16) {
      damaged(file_, fmt::format("member '{}' is on disk {}", name, disk));
    }
  }

  void check_name(const std::string& name) const {
    if (!is_plain_name(name) || name.front() == '/' || name.find('\\') != std::string::npos ||
        ("/" + name + "/").find("/../") != std::string::npos) {
      fail<IoError>("{}: member name '{}' is not a plain relative path", file_.path(), excerpt(name));
    }
  }

  /// Extra field 1 replaces the saturated 32-bit values, in this order.
  void apply_zip64(Entry& entry, std::span<const std::byte> extra) const {
    while (extra.size() >= 4) {
      const auto id = load_little_endian<std::uint16_t>(extra, 0);
      const std::size_t size = load_little_endian<std::uint16_t>(extra, 2);
      if (size > extra.size() - 4) {
        damaged(file_, fmt::format("an extra field of '{}' is longer than the entry", entry.name));
      }
      std::span<const std::byte> values = extra.subspan(4, size);
      extra = extra.subspan(4 + size);
      if (id != 1) {
        continue;
      }
      for (std::uint64_t* value : {&entry.size, &entry.stored_size, &entry.local_offset}) {
        if (*value != kSaturated32) {
          continue;
        }
        if (values.size() < 8) {
          damaged(file_, fmt::format("the ZIP64 field of '{}' is too short", entry.name));
        }
        *value = load_little_endian<std::uint64_t>(values, 0);
        values = values.subspan(8);
      }
    }
  }

  const InputFile& file_;
  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
};

/// Payload offset from the local header, whose name and extra field may differ in length from the
/// directory's.
ZipMember locate(const InputFile& file, Entry entry, std::uint64_t limit) {
  if (entry.local_offset > limit || limit - entry.local_offset < kLocalHeaderBytes) {
    damaged(file,
            fmt::format("member '{}' begins at {}, outside the archive", entry.name, entry.local_offset));
  }
  std::array<std::byte, kLocalHeaderBytes> header{};
  file.read_alone(static_cast<std::int64_t>(entry.local_offset), header);
  if (load_little_endian<std::uint32_t>(header, 0) != kLocalHeader) {
    damaged(file, fmt::format("no local header of '{}' at byte {}", entry.name, entry.local_offset));
  }
  const std::uint64_t payload = entry.local_offset + kLocalHeaderBytes +
                                load_little_endian<std::uint16_t>(header, 26) +
                                load_little_endian<std::uint16_t>(header, 28);
  if (payload > limit || entry.size > limit - payload) {
    damaged(file, fmt::format("member '{}' of {} bytes at {} reaches outside the archive", entry.name,
                              entry.size, payload));
  }
  return {std::move(entry.name), static_cast<std::int64_t>(payload), static_cast<std::int64_t>(entry.size)};
}

}  // namespace

ZipReader::ZipReader(std::shared_ptr<const InputFile> file) : file_(std::move(file)) {
  const Directory directory = find_directory(*file_);
  const auto bytes = read_bytes(*file_, static_cast<std::int64_t>(directory.offset),
                                static_cast<std::int64_t>(directory.size));
  DirectoryParser parser(*file_, bytes);
  for (std::uint64_t i = 0; i < directory.entries; ++i) {
    ZipMember member = locate(*file_, parser.next(), directory.offset);
    if (!by_name_.emplace(member.name, members_.size()).second) {
      damaged(*file_, fmt::format("two members are named '{}'", member.name));
    }
    members_.push_back(std::move(member));
  }
}

const ZipMember* ZipReader::find(const std::string& name) const {
  const auto at = by_name_.find(name);
  return at == by_name_.end() ? nullptr : &members_[at->second];
}

}  // namespace caravan
