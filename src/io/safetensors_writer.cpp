#include <algorithm>
#include <nlohmann/json.hpp>

#include "caravan/core/atomic_file.h"
#include "caravan/core/error.h"
#include "caravan/io/output_file.h"
#include "caravan/io/safetensors.h"
#include "little_endian.h"
#include "safetensors_header.h"

namespace caravan {
namespace {

using nlohmann::ordered_json;

std::string header_of(const std::vector<TensorSource>& sources) {
  ordered_json header;
  header["__metadata__"] = {{"format", "pt"}};  // transformers refuses files without it
  std::int64_t begin = 0;
  for (const TensorSource& source : sources) {
    CARAVAN_CHECK(!header.contains(source.name), "tensor {} given twice", source.name);
    ordered_json shape = ordered_json::array();
    for (int dim = 0; dim < source.shape.rank(); ++dim) {
      shape.push_back(source.shape[dim]);
    }
    const std::int64_t end = begin + source.bytes();
    ordered_json& entry = header[source.name];
    entry["dtype"] = std::string(safetensors_dtype_name(source.dtype));
    entry["shape"] = shape;
    entry["data_offsets"] = {begin, end};
    begin = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  return text;
}

}  // namespace

void write_safetensors(const std::string& path, std::vector<TensorSource> sources) {
  std::stable_sort(sources.begin(), sources.end(), [](const TensorSource& a, const TensorSource& b) {
    const auto size_a = dtype_bytes(a.dtype);
    const auto size_b = dtype_bytes(b.dtype);
    return size_a != size_b ? size_a > size_b : a.name < b.name;
  });
  const std::string header = header_of(sources);
  OutputFile file(path);
  std::string size;
  append_little_endian(size, static_cast<std::uint64_t>(header.size()));
  file.write(size + header);
  for (const TensorSource& source : sources) {
    for_each_block(source, 1, [&](std::span<std::byte> block) { file.write(block); });
  }
  file.commit();
}

void write_sharded_safetensors(const std::string& folder, const std::vector<TensorSource>& sources,
                               std::int64_t shard_limit_bytes) {
  std::vector<std::vector<TensorSource>> shards(1);
  std::int64_t total = 0;
  std::int64_t in_shard = 0;
  for (const TensorSource& source : sources) {
    if (in_shard + source.bytes() > shard_limit_bytes && !shards.back().empty()) {
      shards.emplace_back();
      in_shard = 0;
    }
    shards.back().push_back(source);
    in_shard += source.bytes();
    total += source.bytes();
  }
  if (shards.size() == 1) {
    write_safetensors(folder + "/model.safetensors", std::move(shards.front()));
    return;
  }
  ordered_json index;
  index["metadata"]["total_size"] = total;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    for (const TensorSource& source : shards[i]) {
      index["weight_map"][source.name] = name;
    }
    write_safetensors(folder + "/" + name, std::move(shards[i]));
  }
  write_file_atomically(folder + "/model.safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace caravan
