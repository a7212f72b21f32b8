#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "caravan/core/error.h"
#include "caravan/core/excerpt.h"
#include "caravan/io/safetensors.h"
#include "json_file.h"
#include "little_endian.h"
#include "safetensors_header.h"

namespace caravan {
namespace {

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;           // the reference implementation's limit
constexpr std::int64_t kMaxIndexBytes = std::int64_t{8} << 20U;  // about 60 thousand tensors

/// Bytes of the tensor; IoError on overflow. Empty dims count as one there, so that strides cannot overflow
/// either.
std::int64_t checked_bytes(const SafetensorsEntry& entry, const std::string& path) {
  auto bytes = static_cast<std::int64_t>(dtype_bytes(entry.dtype));
  bool overflows = false;
  bool is_empty = false;
  for (const std::int64_t size : entry.shape) {
    is_empty = is_empty || size == 0;
    overflows = overflows || __builtin_mul_overflow(bytes, std::max<std::int64_t>(size, 1), &bytes);
  }
  if (overflows) {
    fail<IoError>("{}: tensor '{}' of shape ({}) is impossibly large", path, entry.name,
                  fmt::join(entry.shape, ", "));
  }
  return is_empty ? 0 : bytes;
}

/// No holes, no overlaps, every size right, nothing after the last byte.
void check_layout(const std::vector<SafetensorsEntry>& entries, std::int64_t data_bytes,
                  const std::string& path) {
  std::int64_t expected = 0;
  for (const SafetensorsEntry& entry : entries) {
    const std::int64_t bytes = checked_bytes(entry, path);
    if (entry.begin != expected || entry.end < entry.begin) {
      fail<IoError>("{}: tensor '{}' is at bytes {} to {}, but {} is where it must begin", path, entry.name,
                    entry.begin, entry.end, expected);
    }
    if (entry.end - entry.begin != bytes) {
      fail<IoError>("{}: tensor '{}' of shape ({}) needs {} bytes and has {}", path, entry.name,
                    fmt::join(entry.shape, ", "), bytes, entry.end - entry.begin);
    }
    expected = entry.end;
  }
  if (expected != data_bytes) {
    fail<IoError>("{}: the tensors have {} bytes, the file holds {}; it is cut short or damaged", path,
                  expected, data_bytes);
  }
}

void check_file_name(const std::string& name, const std::string& index_path) {
  if (!is_plain_name(name) || name == "." || name == ".." || name.find('/') != std::string::npos ||
      name.find('\\') != std::string::npos) {
    fail<IoError>("{}: '{}' is not a plain file name", index_path, excerpt(name));
  }
}

std::map<std::string, std::string> read_weight_map(const std::string& index_path) {
  const nlohmann::json index = read_json_object(index_path, kMaxIndexBytes);
  const auto at = index.find("weight_map");
  if (at == index.end() || !at->is_object()) {
    fail<IoError>("{}: has no object 'weight_map'", index_path);
  }
  std::map<std::string, std::string> file_of;
  for (const auto& [name, file] : at->items()) {
    if (!file.is_string()) {
      fail<IoError>("{}: weight_map of '{}' is not a file name", index_path, excerpt(name));
    }
    check_file_name(file.get<std::string>(), index_path);
    file_of[name] = file.get<std::string>();
  }
  return file_of;
}

}  // namespace

std::vector<StoredTensor> read_safetensors(const std::string& path) {
  const auto file = std::make_shared<const InputFile>(path);
  std::array<std::byte, 8> head{};
  if (file->size() < 8) {
    fail<IoError>("{}: {} bytes are too few for a safetensors file", path, file->size());
  }
  file->read_at(0, head);
  const auto header_bytes = load_little_endian<std::uint64_t>(head, 0);
  if (header_bytes > kMaxHeaderBytes || static_cast<std::int64_t>(header_bytes) > file->size() - 8) {
    fail<IoError>(
        "{}: a header of {} bytes is impossible in a file of {}; not a safetensors file, or cut short", path,
        header_bytes, file->size());
  }
  std::string header(header_bytes, '\0');
  file->read_at(8, std::as_writable_bytes(std::span(header)));
  std::vector<SafetensorsEntry> entries = parse_safetensors_header(header, path);
  std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  const std::int64_t data = 8 + static_cast<std::int64_t>(header_bytes);
  check_layout(entries, file->size() - data, path);
  std::vector<StoredTensor> tensors;
  for (SafetensorsEntry& entry : entries) {
    StoredTensor tensor;
    tensor.name = std::move(entry.name);
    tensor.dtype = entry.dtype;
    tensor.strides = contiguous_strides(entry.shape);
    tensor.shape = std::move(entry.shape);
    tensor.offset_bytes = data + entry.begin;
    tensor.file = file;
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

std::vector<StoredTensor> read_sharded_safetensors(const std::string& index_path) {
  std::map<std::string, std::string> file_of = read_weight_map(index_path);
  std::set<std::string> files;
  for (const auto& [name, file] : file_of) {
    files.insert(file);
  }
  const std::filesystem::path folder = std::filesystem::path(index_path).parent_path();
  std::vector<StoredTensor> tensors;
  for (const std::string& file : files) {
    for (StoredTensor& tensor : read_safetensors((folder / file).string())) {
      const auto at = file_of.find(tensor.name);
      if (at == file_of.end()) {
        fail<IoError>("{}: tensor '{}' of {} is in another file too, or not in the index", index_path,
                      tensor.name, file);
      }
      if (at->second != file) {
        fail<IoError>("{}: tensor '{}' belongs to {} but is in {}", index_path, tensor.name, at->second,
                      file);
      }
      file_of.erase(at);
      tensors.push_back(std::move(tensor));
    }
  }
  if (!file_of.empty()) {
    fail<IoError>("{}: tensor '{}' is not in {}", index_path, excerpt(file_of.begin()->first),
                  file_of.begin()->second);
  }
  return tensors;
}

}  // namespace caravan
