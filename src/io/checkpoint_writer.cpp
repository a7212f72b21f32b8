#include "caravan/io/checkpoint_writer.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>

#include "caravan/core/atomic_file.h"
#include "caravan/core/error.h"
#include "caravan/io/llama_names.h"
#include "caravan/io/meta_parts.h"
#include "caravan/io/params_json.h"
#include "caravan/io/safetensors.h"
#include "caravan/io/torch_file.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

/// The sources in the model's order; InternalError unless they are exactly the model's parameters, or what
/// one of `parts` files holds of them.
std::vector<TensorSource> in_model_order(const ModelConfig& config, const std::vector<TensorSource>& sources,
                                         std::int64_t parts = 1) {
  std::map<std::string, const TensorSource*> by_name;
  for (const TensorSource& source : sources) {
    CARAVAN_CHECK(by_name.emplace(source.name, &source).second, "{} is given twice", source.name);
  }
  std::vector<TensorSource> ordered;
  for (const TensorInfo& info : expected_tensors(config, DType::kFloat32)) {
    const auto at = by_name.find(info.name);
    CARAVAN_CHECK(at != by_name.end(), "{} is not given", info.name);
    const Shape shape = region_shape(meta_part(info, 0, parts));
    CARAVAN_CHECK(at->second->shape == shape && is_floating(at->second->dtype), "{} is {} {}, not {}",
                  info.name, dtype_name(at->second->dtype), at->second->shape.str(), shape.str());
    ordered.push_back(*at->second);
  }
  CARAVAN_CHECK(ordered.size() == sources.size(), "{} tensors given for a model of {}", sources.size(),
                ordered.size());
  return ordered;
}

void copy_file(const std::string& from, const std::string& to) {
  const InputFile source(from);
  OutputFile target(to);
  std::vector<std::byte> block(std::size_t{1} << 20U);
  for (std::int64_t at = 0; at < source.size();) {
    const auto bytes = std::min(static_cast<std::int64_t>(block.size()), source.size() - at);
    const auto now = std::span(block).first(static_cast<std::size_t>(bytes));
    source.read_at(at, now);
    target.write(now);
    at += bytes;
  }
  target.commit();
}

void write_companions(const OutputFolder& folder, const CheckpointWriteOptions& options) {
  for (const std::string& path : options.copied_files) {
    copy_file(path, folder.file(fs::path(path).filename().string()));
  }
  if (options.add_files) {
    options.add_files(folder.temporary_path());
  }
}

/// Rows of whole heads, read in Meta's order and handed on in Hugging Face's.
TensorSource permuted(const TensorSource& source, std::int64_t head_dim) {
  TensorSource result = source;
  const auto row_bytes = static_cast<std::size_t>(source.row_bytes());
  // Blocks need not end at a head's end: the last head read is kept until its rows have been asked for.
  struct Head {
    std::int64_t index = -1;
    std::vector<std::byte> rows;
  };
  auto head = std::make_shared<Head>();
  result.read_rows = [source, head_dim, row_bytes, head](std::int64_t begin, std::int64_t end,
                                                         std::byte* destination) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t index = row / head_dim;
      if (head->index != index) {
        head->rows.resize(static_cast<std::size_t>(head_dim) * row_bytes);
        source.read_rows(index * head_dim, (index + 1) * head_dim, head->rows.data());
        head->index = index;
      }
      const std::int64_t in_head = row % head_dim;
      const std::int64_t half = head_dim / 2;
      const std::int64_t meta_row = in_head % half * 2 + in_head / half;
      std::memcpy(destination + static_cast<std::size_t>(row - begin) * row_bytes,
                  head->rows.data() + static_cast<std::size_t>(meta_row) * row_bytes, row_bytes);
    }
  };
  return result;
}

}  // namespace

void write_meta_checkpoint(const std::string& folder, const ModelConfig& config,
                           const std::vector<TensorSource>& sources, const CheckpointWriteOptions& options) {
  write_meta_parts(folder, config, {sources}, options);
}

void write_meta_parts(const std::string& folder, const ModelConfig& config,
                      const std::vector<std::vector<TensorSource>>& parts,
                      const CheckpointWriteOptions& options) {
  std::vector<std::vector<TensorSource>> ordered;
  for (const std::vector<TensorSource>& sources : parts) {
    ordered.push_back(in_model_order(config, sources, static_cast<std::int64_t>(parts.size())));
  }
  std::vector<SharedTensor> shared;
  if (config.tie_embeddings) {  // Meta's loader wants an output tensor in every file
    shared.push_back({kOutputName, kEmbeddingName});
  }
  OutputFolder output(folder, options.if_exists);
  for (std::size_t part = 0; part < ordered.size(); ++part) {
    write_torch_file(output.file(fmt::format("consolidated.{:02}.pth", part)), ordered[part], shared);
  }
  write_file_atomically(output.file("params.json"), to_params_json(config));
  write_companions(output, options);
  output.commit();
}

void write_hf_checkpoint(const std::string& folder, const ModelConfig& config,
                         const std::vector<TensorSource>& sources, const CheckpointWriteOptions& options) {
  std::vector<TensorSource> renamed;
  for (const TensorSource& source : in_model_order(config, sources)) {
    const bool is_permuted = permuted_heads(source.name, config) > 0;
    renamed.push_back(is_permuted ? permuted(source, config.head_dim) : source);
    renamed.back().name = hf_name_of(source.name).value();
  }
  OutputFolder output(folder, options.if_exists);
  write_sharded_safetensors(output.temporary_path(), renamed, options.shard_limit_bytes);
  write_file_atomically(output.file("config.json"), to_hf_config(config, renamed.front().dtype));
  write_companions(output, options);
  output.commit();
}

}  // namespace caravan
