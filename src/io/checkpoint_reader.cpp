#include "caravan/io/checkpoint_reader.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <system_error>
#include <tuple>
#include <unordered_map>

#include "caravan/core/error.h"
#include "caravan/core/log.h"
#include "caravan/io/checkpoint_manifest.h"
#include "caravan/io/convert_dtype.h"
#include "caravan/io/params_json.h"
#include "caravan/io/safetensors.h"
#include "caravan/io/training_model.h"
#include "checkpoint_tensors.h"
#include "merged_tensor.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

/// Both layouts end as a list of merged tensors; only building that list differs.
class FolderReader : public CheckpointReader {
 public:
  FolderReader(CheckpointLayout layout, ModelConfig config, std::vector<MergedTensor> tensors)
      : layout_(layout), config_(std::move(config)), tensors_(std::move(tensors)) {
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      infos_.push_back(tensors_[i].info);
      if (!by_name_.emplace(tensors_[i].info.name, i).second) {
        fail<IoError>("{}: tensor '{}' occurs twice", tensors_[i].parts.front().file->path(),
                      tensors_[i].info.name);
      }
    }
  }

  CheckpointLayout layout() const override { return layout_; }
  const ModelConfig& config() const override { return config_; }
  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  std::vector<std::string> reading_order() const override {
    std::vector<const MergedTensor*> order;
    for (const MergedTensor& tensor : tensors_) {
      order.push_back(&tensor);
    }
    const auto place = [](const MergedTensor* tensor) {
      const StoredTensor& first = tensor->parts.front();
      return std::tie(first.file->path(), first.offset_bytes);
    };
    std::stable_sort(order.begin(), order.end(),
                     [&](const auto* a, const auto* b) { return place(a) < place(b); });
    std::vector<std::string> names;
    for (const MergedTensor* tensor : order) {
      names.push_back(tensor->info.name);
    }
    return names;
  }
  bool output_tied() const override { return config_.tie_embeddings; }
  void read(const std::string& name, const Region& region, TensorView destination) const override {
    const auto at = by_name_.find(name);
    CARAVAN_CHECK(at != by_name_.end(), "no tensor '{}' in the checkpoint", name);
    read_region_on_threads(tensors_[at->second], region, destination);
  }

 private:
  CheckpointLayout layout_;
  ModelConfig config_;
  std::vector<MergedTensor> tensors_;
  std::vector<TensorInfo> infos_;
  std::unordered_map<std::string, std::size_t> by_name_;
};

struct FolderFiles {
  std::vector<std::string> consolidated;  // full paths, sorted
  std::string safetensors;                // one file or an index; empty when there is neither
  bool is_index = false;
  bool has_params = false;
  bool has_config = false;
  bool has_pytorch_bin = false;
};

FolderFiles list_folder(const std::string& folder) {
  std::error_code error;
  FolderFiles files;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("consolidated.") && name.ends_with(".pth")) {
      files.consolidated.push_back(entry.path().string());
    }
    files.has_params = files.has_params || name == "params.json";
    files.has_config = files.has_config || name == "config.json";
    files.has_pytorch_bin =
        files.has_pytorch_bin || (name.starts_with("pytorch_model") && name.ends_with(".bin"));
    if (name == "model.safetensors" || name == "model.safetensors.index.json") {
      if (!files.safetensors.empty()) {
        fail<IoError>("{}: has both model.safetensors and model.safetensors.index.json; remove one", folder);
      }
      files.safetensors = entry.path().string();
      files.is_index = name != "model.safetensors";
    }
  }
  if (error) {
    fail<IoError>("{}: the checkpoint folder cannot be read: {}", folder, error.message());
  }
  std::sort(files.consolidated.begin(), files.consolidated.end());
  return files;
}

// ---- the output layer

std::vector<MergedTensor>::iterator find_tensor(std::vector<MergedTensor>& tensors, const std::string& name) {
  return std::find_if(tensors.begin(), tensors.end(), [&](const auto& t) { return t.info.name == name; });
}

/// Same storage or equal bytes.
bool is_same_weight(const MergedTensor& a, const MergedTensor& b) {
  const bool is_shared = a.parts.size() == b.parts.size() &&
                         std::equal(a.parts.begin(), a.parts.end(), b.parts.begin(), is_same_memory);
  return is_shared || are_equal(a, b);
}

/// Decides whether the output is tied and adds or removes its tensor accordingly.
bool settle_output(std::vector<MergedTensor>& tensors, const ModelConfig& config, Tie tie,
                   const std::string& folder) {
  const auto embedding = find_tensor(tensors, kEmbeddingName);
  const auto output = find_tensor(tensors, kOutputName);
  const bool has_both = embedding != tensors.end() && output != tensors.end();
  if (tie == Tie::kUntied) {
    if (output == tensors.end() && embedding != tensors.end()) {
      MergedTensor copy = *embedding;
      copy.info.name = kOutputName;
      tensors.push_back(std::move(copy));
    }
    return false;
  }
  // Only tensors of the model's own size are compared: a file may claim any shape (strides of 0 cost no
  // bytes).
  const bool has_size = has_both && embedding->info.shape.rank() == 2 &&
                        embedding->info.shape[1] == config.hidden_size &&
                        (config.vocab_size <= 0 || embedding->info.shape[0] == config.vocab_size);
  const bool is_same = has_size && is_same_weight(*embedding, *output);
  if (tie == Tie::kTied && has_both && !is_same) {
    log::warning("{}: tie_embeddings is true, so {} is not used although it differs from {}", folder,
                 kOutputName, kEmbeddingName);
  }
  const bool is_tied = tie == Tie::kTied || output == tensors.end() || is_same;
  if (is_tied && output != tensors.end()) {
    tensors.erase(output);
  }
  return is_tied;
}

std::unique_ptr<CheckpointReader> make_reader(CheckpointLayout layout, ModelConfig config,
                                              std::vector<MergedTensor> tensors, Tie tie,
                                              const std::string& folder) {
  const bool is_tied = settle_output(tensors, config, tie, folder);
  if (layout == CheckpointLayout::kHuggingFace && tie == Tie::kAuto && is_tied != config.tie_embeddings) {
    log::warning(
        "{}: config.json says tie_word_embeddings {}, the tensors say {}; set tie_embeddings to decide",
        folder, config.tie_embeddings, is_tied);
  }
  config.tie_embeddings = is_tied;
  return std::make_unique<FolderReader>(layout, std::move(config), std::move(tensors));
}

[[noreturn]] void fail_unrecognised(const std::string& folder, const FolderFiles& files) {
  if (!files.consolidated.empty() && !files.safetensors.empty()) {
    fail<IoError>(
        "{}: has both Meta's consolidated.NN.pth and Hugging Face's safetensors; keep one of them there",
        folder);
  }
  if (!files.consolidated.empty() || !files.safetensors.empty()) {
    fail<IoError>("{}: has weights but no {}", folder,
                  files.consolidated.empty() ? "config.json" : "params.json");
  }
  fail<IoError>(
      "{}: is no checkpoint: neither consolidated.00.pth with params.json (Meta) nor model.safetensors or "
      "its "
      "index with config.json (Hugging Face){}",
      folder,
      files.has_pytorch_bin ? "; pytorch_model*.bin is not read, save the model again as safetensors" : "");
}

}  // namespace

std::unique_ptr<CheckpointReader> open_checkpoint(const std::string& folder,
                                                  std::optional<double> rope_scaling_factor, Tie tie) {
  const FolderFiles files = list_folder(folder);
  if (has_manifest(folder)) {
    return open_training_model(folder, rope_scaling_factor, tie);
  }
  const bool is_meta = !files.consolidated.empty() && files.has_params && files.safetensors.empty();
  const bool is_hf = !files.safetensors.empty() && files.has_config && files.consolidated.empty();
  if (is_meta) {
    ModelConfig config = read_params_json(folder + "/params.json", rope_scaling_factor);
    std::vector<MergedTensor> tensors = merge_meta_files(files.consolidated, config);
    if (const auto at = find_tensor(tensors, kEmbeddingName);
        config.vocab_size == 0 && at != tensors.end() && at->info.shape.rank() == 2) {
      config.vocab_size = at->info.shape[0];
    }
    return make_reader(CheckpointLayout::kMeta, std::move(config), std::move(tensors), tie, folder);
  }
  if (is_hf) {
    ModelConfig config = read_hf_config(folder + "/config.json", rope_scaling_factor);
    auto tensors = rename_hf_tensors(
        files.is_index ? read_sharded_safetensors(files.safetensors) : read_safetensors(files.safetensors),
        config, folder);
    return make_reader(CheckpointLayout::kHuggingFace, std::move(config), std::move(tensors), tie, folder);
  }
  fail_unrecognised(folder, files);
}

std::vector<TensorSource> tensor_sources(const CheckpointReader& reader, std::optional<DType> dtype) {
  std::vector<TensorSource> sources;
  for (const TensorInfo& info : reader.tensors()) {
    const DType target = dtype.value_or(info.dtype);
    const auto read_rows = [&reader, info, target](std::int64_t begin, std::int64_t end,
                                                   std::byte* destination) {
      Region region = full_region(info.shape);
      region.at(0) = {begin, end};
      reader.read(info.name, region, TensorView(destination, target, region_shape(region)));
    };
    sources.push_back({info.name, info.shape, target, read_rows});
  }
  return sources;
}

void check_tensors(const CheckpointReader& reader, const std::vector<TensorInfo>& expected) {
  std::map<std::string, const TensorInfo*> found;
  for (const TensorInfo& info : reader.tensors()) {
    found.emplace(info.name, &info);
  }
  std::vector<std::string> problems;
  for (const TensorInfo& info : expected) {
    const auto at = found.find(info.name);
    if (at == found.end()) {
      problems.push_back(fmt::format("  missing: {} {}", info.name, info.shape.str()));
      continue;
    }
    const TensorInfo& there = *at->second;
    if (there.shape != info.shape) {
      problems.push_back(
          fmt::format("  wrong shape: {} is {}, not {}", info.name, there.shape.str(), info.shape.str()));
    }
    if (!can_convert(there.dtype, info.dtype)) {
      problems.push_back(fmt::format("  wrong type: {} is {}, which cannot be read as {}", info.name,
                                     dtype_name(there.dtype), dtype_name(info.dtype)));
    }
    found.erase(at);
  }
  for (const auto& [name, there] : found) {
    problems.push_back(fmt::format("  unknown: {} {}", name, there->shape.str()));
  }
  if (!problems.empty()) {
    fail<IoError>("the checkpoint does not fit the model, {} differences:\n{}", problems.size(),
                  fmt::join(problems, "\n"));
  }
}

}  // namespace caravan
