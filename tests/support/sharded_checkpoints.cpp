#include "support/sharded_checkpoints.h"

#include <cstring>

#include "caravan/core/error.h"
#include "caravan/io/checkpoint_store.h"

namespace caravan::test {
namespace {

/// Member `index` of `count` gets a part of [0, size); the last ones get more, so that no two cuts of a test
/// are even by accident.
Range uneven(std::int64_t size, std::int64_t index, std::int64_t count) {
  const auto end = [&](std::int64_t i) { return size * i * (i + 1) / (count * (count + 1)); };
  return {end(index), end(index + 1)};
}

TrainingState sample_state(const SampleWrite& what) {
  TrainingState state;
  state.step = what.step;
  state.optimizer_step = what.step - 1;
  state.data_position = what.step * 32;
  state.step_records = what.step;
  state.history_records = 2;
  state.seed = 42;
  state.random_state = "philox \"1\"";
  state.config = "seed: 42\ndata:\n  train: \"a b\"\n";
  state.commit = "abc123";
  state.ranks = what.ranks;
  state.mesh = "tp 2, dp_shard 2";
  state.extra = {{"epoch", "3"}};
  return state;
}

}  // namespace

std::vector<GlobalTensor> sample_tensors() {
  return {{"tok_embeddings.weight", {13, 6}, DType::kFloat32},
          {"layers.0.attention.wo.weight", {6, 17}, DType::kFloat32},
          {"layers.0.feed_forward.w1.weight", {9, 10}, DType::kFloat64},
          {"norm.weight", {6}, DType::kFloat32},
          {"optimizer.exp_avg.norm.weight", {6}, DType::kFloat32},
          {"optimizer.exp_avg_sq.cube", {3, 7, 5}, DType::kBFloat16},
          {"half", {11}, DType::kInt8},
          {"count", {}, DType::kInt64},
          {"nothing", {0, 4}, DType::kFloat32}};
}

std::vector<std::byte> sample_content(const GlobalTensor& tensor, std::int64_t step) {
  const std::size_t item = dtype_bytes(tensor.dtype);
  std::vector<std::byte> content(static_cast<std::size_t>(tensor.shape.numel()) * item);
  std::uint64_t salt = static_cast<std::uint64_t>(step) * 1000003U;
  for (const char letter : tensor.name) {
    salt = salt * 31 + static_cast<unsigned char>(letter);
  }
  for (std::size_t i = 0; i < content.size() / item; ++i) {
    const std::uint64_t word = (salt + i) * 0x9E3779B97F4A7C15U;
    std::byte* to = content.data() + i * item;
    // Floating values stay finite, so that conversions can be compared.
    const auto value = static_cast<double>(word >> 44U) / 64.0 - 8192.0;
    if (tensor.dtype == DType::kFloat32) {
      const auto single = static_cast<float>(value);
      std::memcpy(to, &single, item);
    } else if (tensor.dtype == DType::kFloat64) {
      std::memcpy(to, &value, item);
    } else if (tensor.dtype == DType::kBFloat16) {
      const BFloat16 half = to_bfloat16(static_cast<float>(value));
      std::memcpy(to, &half, item);
    } else {
      std::memcpy(to, &word, item);
    }
  }
  return content;
}

std::vector<std::byte> cut_out(const GlobalTensor& tensor, const std::vector<std::byte>& content,
                               const Region& region) {
  const std::size_t item = dtype_bytes(tensor.dtype);
  std::vector<std::byte> cut;
  for (std::int64_t element = 0; element < tensor.shape.numel(); ++element) {
    bool is_inside = true;
    std::int64_t rest = element;
    for (int dim = tensor.shape.rank(); dim-- > 0;) {
      const std::int64_t index = rest % tensor.shape[dim];
      rest /= tensor.shape[dim];
      const Range& range = region[static_cast<std::size_t>(dim)];
      is_inside = is_inside && range.begin <= index && index < range.end;
    }
    if (is_inside) {
      const auto* from = content.data() + static_cast<std::size_t>(element) * item;
      cut.insert(cut.end(), from, from + item);
    }
  }
  return cut;
}

Region owned_region(const GlobalTensor& tensor, std::int64_t rank, std::int64_t ranks) {
  Region region = full_region(tensor.shape);
  const bool is_whole = tensor.name == "norm.weight" || tensor.shape.rank() == 0;
  if (is_whole) {
    const bool is_owner = rank == (tensor.shape.rank() == 0 ? ranks - 1 : 0);
    if (!is_owner && !region.empty()) {
      region[0] = {0, 0};
    }
  } else if (tensor.name == "layers.0.attention.wo.weight") {
    region[1] = uneven(tensor.shape[1], rank, ranks);
  } else if (tensor.name == "optimizer.exp_avg_sq.cube") {
    region[1] = uneven(tensor.shape[1], ranks - 1 - rank, ranks);
  } else if (tensor.name == "layers.0.feed_forward.w1.weight" && ranks % 2 == 0) {
    region[0] = uneven(tensor.shape[0], rank / 2, ranks / 2);
    region[1] = uneven(tensor.shape[1], rank % 2, 2);
  } else {
    region[0] = uneven(tensor.shape[0], rank, ranks);
  }
  return region;
}

std::vector<ShardSource> sample_sources(const SampleWrite& what, std::int64_t rank,
                                        std::vector<std::vector<std::byte>>& memory) {
  std::vector<ShardSource> sources;
  for (const GlobalTensor& tensor : sample_tensors()) {
    if (tensor.shape.rank() == 0 && rank != what.ranks - 1) {
      continue;  // a single number has no empty region
    }
    ShardSource source{.tensor = tensor, .region = owned_region(tensor, rank, what.ranks), .read = {}};
    memory.push_back(cut_out(tensor, sample_content(tensor, what.step), source.region));
    source.data = memory.back().data();
    sources.push_back(std::move(source));
  }
  return sources;
}

std::string write_sample(const std::string& parent, const SampleWrite& what) {
  std::string path = parent + "/" + step_folder_name(what.step);
  OutputFolder folder(path, IfExists::kReplace);
  std::vector<CheckpointTables> reports;
  for (std::int64_t rank = 0; rank < what.ranks; ++rank) {
    std::vector<std::vector<std::byte>> memory;
    ShardedCheckpointWriter writer({what.id, what.step, rank}, sample_sources(what, rank, memory),
                                   what.max_piece_bytes);
    writer.open(folder.temporary_path());
    reports.push_back(parse_tables(tables_text(writer.write()), "rank"));
  }
  write_manifest(folder.temporary_path(), merge_tables(what.id, sample_state(what), reports));
  folder.commit();
  return path;
}

bool holds_sample(ShardedCheckpointReader& reader, std::int64_t ranks) {
  for (const GlobalTensor& tensor : sample_tensors()) {
    const GlobalTensor* found = reader.find(tensor.name);
    if (found == nullptr || *found != tensor) {
      return false;
    }
    const std::vector<std::byte> content = sample_content(tensor, reader.state().step);
    for (std::int64_t rank = 0; rank < ranks; ++rank) {
      const Region region = owned_region(tensor, rank, ranks);
      const std::vector<std::byte> wanted = cut_out(tensor, content, region);
      std::vector<std::byte> got(wanted.size());
      reader.read(tensor.name, region, TensorView(got.data(), tensor.dtype, region_shape(region)));
      if (got != wanted) {
        return false;
      }
    }
  }
  return reader.manifest().tables.tensors.size() == sample_tensors().size();
}

}  // namespace caravan::test
