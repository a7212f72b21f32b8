#include "support/checkpoints.h"

#include <algorithm>
#include <cstring>

namespace caravan::test {

std::map<std::string, std::vector<double>> read_all(const CheckpointReader& reader) {
  std::map<std::string, std::vector<double>> all;
  for (const TensorInfo& info : reader.tensors()) {
    std::vector<double>& values = all[info.name];
    values.resize(static_cast<std::size_t>(info.shape.numel()));
    reader.read(info.name, full_region(info.shape), TensorView(values.data(), DType::kFloat64, info.shape));
  }
  return all;
}

std::vector<TensorSource> numbered_sources(const ModelConfig& config) {
  std::vector<TensorSource> sources;
  for (const TensorInfo& info : expected_tensors(config, DType::kFloat32)) {
    const auto number = static_cast<float>(sources.size());
    const std::int64_t columns = info.shape.numel() / info.shape[0];
    const auto read_rows = [number, columns](std::int64_t begin, std::int64_t end, std::byte* destination) {
      for (std::int64_t i = begin * columns; i < end * columns; ++i) {
        const float value = number + static_cast<float>(i) / 1024.0F;
        std::memcpy(destination + (i - begin * columns) * 4, &value, 4);
      }
    };
    sources.push_back({info.name, info.shape, DType::kFloat32, read_rows});
  }
  return sources;
}

std::vector<std::string> file_names(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace caravan::test
