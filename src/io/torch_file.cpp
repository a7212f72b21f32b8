#include "caravan/io/torch_file.h"

#include <array>
#include <cstring>
#include <filesystem>
#include <map>
#include <string_view>

#include "caravan/core/error.h"
#include "caravan/core/excerpt.h"
#include "caravan/io/pickle.h"
#include "caravan/io/zip_reader.h"
#include "caravan/io/zip_writer.h"

namespace caravan {
namespace {

constexpr std::int64_t kMaxPickleBytes = std::int64_t{64} << 20U;

void check_container(const InputFile& file) {
  std::array<std::byte, 8> head{};
  const auto wanted = std::min<std::int64_t>(file.size(), 8);
  file.read_at(0, std::span(head).first(static_cast<std::size_t>(wanted)));
  if (std::memcmp(head.data(), "PYTORCH1", 8) == 0) {
    fail<IoError>("{}: is a PYTORCH1 container, which is not read; save it again with torch.save",
                  file.path());
  }
  if (std::memcmp(head.data(), "PK\x03\x04", 4) != 0) {
    fail<IoError>(
        "{}: is not a PyTorch ZIP archive; files saved by PyTorch before 1.6 must be loaded and saved again "
        "with a newer one",
        file.path());
  }
}

/// An archive of torch.save, everything under one top folder.
class TorchArchive {
 public:
  explicit TorchArchive(const std::string& path) : zip_(open(path)) {
    if (zip_.members().empty()) {
      fail<IoError>("{}: the archive is empty", path);
    }
    const std::string& first = zip_.members().front().name;
    root_ = first.substr(0, first.find('/') + 1);
    for (const ZipMember& member : zip_.members()) {
      if (root_.empty() || !member.name.starts_with(root_)) {
        fail<IoError>("{}: member '{}' is outside the archive's folder '{}'; not written by torch.save", path,
                      member.name, root_);
      }
      const std::string inner = member.name.substr(root_.size());
      if (inner == "constants.pkl" || inner.starts_with("code/")) {
        fail<IoError>("{}: is a TorchScript archive, which is not read; save the state_dict with torch.save",
                      path);
      }
    }
    check_version();
  }

  const std::shared_ptr<const InputFile>& file() const { return zip_.file(); }
  const ZipMember* find(const std::string& name) const { return zip_.find(root_ + name); }
  std::string read(const ZipMember& member, std::int64_t limit_bytes) const {
    if (member.size > limit_bytes) {
      fail<IoError>("{}: member '{}' has {} bytes; at most {} are read", file()->path(), member.name,
                    member.size, limit_bytes);
    }
    std::string text(static_cast<std::size_t>(member.size), '\0');
    file()->read_at(member.offset, std::as_writable_bytes(std::span(text)));
    return text;
  }

 private:
  static std::shared_ptr<const InputFile> open(const std::string& path) {
    auto file = std::make_shared<const InputFile>(path);
    check_container(*file);
    return file;
  }

  void check_version() const {
    const ZipMember* version = find("version");
    if (version == nullptr) {
      fail<IoError>("{}: member 'version' is missing; not written by torch.save", file()->path());
    }
    std::string text = read(*version, 16);
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) {
      text.pop_back();
    }
    const bool is_known = text == "10" || (text.size() == 1 && text[0] >= '2' && text[0] <= '9');
    if (!is_known) {
      fail<IoError>("{}: archive version '{}' is unknown (2 to 10 are read)", file()->path(), excerpt(text));
    }
    if (const ZipMember* order = find("byteorder"); order != nullptr && read(*order, 16) != "little") {
      fail<IoError>("{}: byte order '{}'; only little-endian files are read", file()->path(),
                    excerpt(read(*order, 16)));
    }
  }

  ZipReader zip_;
  std::string root_;
};

StoredTensor locate(const TorchArchive& archive, PickledTensor pickled) {
  const ZipMember* storage = archive.find("data/" + pickled.storage_key);
  const std::string& path = archive.file()->path();
  if (storage == nullptr) {
    fail<IoError>("{}: tensor '{}' wants storage {}, which is missing", path, pickled.name,
                  pickled.storage_key);
  }
  const auto item = static_cast<std::int64_t>(dtype_bytes(pickled.dtype));
  if (storage->size % item != 0 || storage->size / item != pickled.storage_numel) {
    fail<IoError>("{}: storage {} of tensor '{}' has {} bytes, not {} elements of {}", path,
                  pickled.storage_key, pickled.name, storage->size, pickled.storage_numel,
                  dtype_name(pickled.dtype));
  }
  StoredTensor tensor;
  tensor.name = std::move(pickled.name);
  tensor.dtype = pickled.dtype;
  tensor.shape = std::move(pickled.shape);
  tensor.strides = std::move(pickled.strides);
  // An empty tensor may have any offset; it is never read.
  tensor.offset_bytes =
      pickled.storage_offset <= pickled.storage_numel ? storage->offset + pickled.storage_offset * item : 0;
  tensor.file = archive.file();
  return tensor;
}

}  // namespace

std::vector<StoredTensor> read_torch_file(const std::string& path) {
  const TorchArchive archive(path);
  const ZipMember* pickle = archive.find("data.pkl");
  if (pickle == nullptr) {
    fail<IoError>("{}: member 'data.pkl' is missing; not written by torch.save", path);
  }
  const std::string bytes = archive.read(*pickle, kMaxPickleBytes);
  std::vector<StoredTensor> tensors;
  for (PickledTensor& pickled : parse_tensor_dict(std::as_bytes(std::span(bytes)), path)) {
    tensors.push_back(locate(archive, std::move(pickled)));
  }
  return tensors;
}

void write_torch_file(const std::string& path, const std::vector<TensorSource>& sources,
                      const std::vector<SharedTensor>& shared) {
  std::vector<PickledTensor> pickled;
  std::map<std::string, std::size_t> by_name;
  for (const TensorSource& source : sources) {
    PickledTensor tensor;
    tensor.name = source.name;
    tensor.storage_key = std::to_string(pickled.size());
    tensor.dtype = source.dtype;
    tensor.storage_numel = source.shape.numel();
    for (int dim = 0; dim < source.shape.rank(); ++dim) {
      tensor.shape.push_back(source.shape[dim]);
    }
    tensor.strides = contiguous_strides(tensor.shape);
    by_name.emplace(source.name, pickled.size());
    pickled.push_back(std::move(tensor));
  }
  for (const SharedTensor& view : shared) {
    CARAVAN_CHECK(by_name.contains(view.same_as), "{} shares the storage of {}, which is not written",
                  view.name, view.same_as);
    pickled.push_back(pickled[by_name.at(view.same_as)]);
    pickled.back().name = view.name;
  }
  OutputFile file(path);
  ZipWriter zip(file);
  const std::string root = std::filesystem::path(path).stem().string() + "/";
  zip.add(root + "data.pkl", write_tensor_dict(pickled));
  zip.add(root + "byteorder", "little");
  for (std::size_t i = 0; i < sources.size(); ++i) {
    zip.begin(root + "data/" + std::to_string(i), sources[i].bytes());
    for_each_block(sources[i], 1, [&](std::span<std::byte> block) { zip.write(block); });
    zip.end();
  }
  zip.add(root + "version", "3\n");
  zip.finish();
  file.commit();
}

}  // namespace caravan
