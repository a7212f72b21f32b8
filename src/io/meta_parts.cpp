#include "caravan/io/meta_parts.h"

#include <fmt/ranges.h>

#include <array>
#include <numeric>
#include <utility>

#include "caravan/core/error.h"

namespace caravan {

void check_meta_parts(const ModelConfig& config, std::int64_t parts) {
  const std::array<std::pair<const char*, std::int64_t>, 4> sizes = {
      {{"n_heads", config.n_heads},
       {"n_kv_heads", config.n_kv_heads},
       {"intermediate_size", config.intermediate_size},
       {"vocab_size", config.vocab_size}}};
  std::vector<std::string> wrong;
  std::int64_t common = 0;
  for (const auto& [name, size] : sizes) {
    common = std::gcd(common, size);
    if (parts < 1 || size % parts != 0) {
      wrong.push_back(fmt::format("{} {}", name, size));
    }
  }
  if (wrong.empty()) {
    return;
  }
  std::vector<std::int64_t> possible;
  for (std::int64_t count = 1; count <= config.n_kv_heads; ++count) {
    if (common % count == 0) {
      possible.push_back(count);
    }
  }
  fail<ConfigError>(
      "the model cannot be split into {} files of Meta's layout, whose parts are equal: {} cannot be "
      "divided; "
      "possible here: {}",
      parts, fmt::join(wrong, ", "), fmt::join(possible, ", "));
}

Region meta_part(const TensorInfo& tensor, std::int64_t part, std::int64_t parts) {
  CARAVAN_CHECK(0 <= part && part < parts, "part {} of {}", part, parts);
  Region region = full_region(tensor.shape);
  if (const std::optional<int> dim = file_split_dim(tensor.name)) {
    const std::int64_t size = tensor.shape[*dim];
    CARAVAN_CHECK(size % parts == 0, "{} of {} in {} parts", tensor.shape.str(), tensor.name, parts);
    region[static_cast<std::size_t>(*dim)] = {part * (size / parts), (part + 1) * (size / parts)};
  }
  return region;
}

std::vector<TensorSource> part_sources(const CheckpointReader& reader, std::optional<DType> dtype,
                                       std::int64_t part, std::int64_t parts) {
  std::vector<TensorSource> sources;
  for (const TensorInfo& info : reader.tensors()) {
    const DType target = dtype.value_or(info.dtype);
    const Region whole = meta_part(info, part, parts);
    const auto read_rows = [&reader, info, target, whole](std::int64_t begin, std::int64_t end,
                                                          std::byte* destination) {
      Region region = whole;
      region.at(0) = {whole[0].begin + begin, whole[0].begin + end};
      reader.read(info.name, region, TensorView(destination, target, region_shape(region)));
    };
    sources.push_back({info.name, region_shape(whole), target, read_rows});
  }
  return sources;
}

}  // namespace caravan
