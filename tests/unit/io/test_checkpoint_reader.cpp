#include "caravan/io/checkpoint_reader.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>

#include "caravan/core/error.h"
#include "caravan/core/parallel_for.h"
#include "caravan/io/checkpoint_writer.h"
#include "caravan/io/params_json.h"
#include "caravan/io/safetensors.h"
#include "caravan/io/torch_file.h"
#include "caravan/io/zip_writer.h"
#include "support/checkpoints.h"
#include "support/data_files.h"
#include "support/pickle_bytes.h"
#include "support/temporary_folder.h"

using namespace caravan;
using namespace caravan::test;

namespace {

/// Writes `reader`'s tensors as consolidated.00.pth ... the way Meta splits large models.
void write_split(const std::string& folder, const CheckpointReader& reader, std::int64_t count) {
  write_text(folder + "/params.json", to_params_json(reader.config()));
  for (std::int64_t part = 0; part < count; ++part) {
    std::vector<TensorSource> sources;
    for (const TensorInfo& info : reader.tensors()) {
      Region region = full_region(info.shape);
      if (const auto dim = file_split_dim(info.name)) {
        Range& range = region.at(static_cast<std::size_t>(*dim));
        range = {range.end / count * part, range.end / count * (part + 1)};
      }
      const auto read_rows = [&reader, info, region](std::int64_t begin, std::int64_t end,
                                                     std::byte* destination) {
        Region rows = region;
        rows[0] = {region[0].begin + begin, region[0].begin + end};
        reader.read(info.name, rows, TensorView(destination, info.dtype, region_shape(rows)));
      };
      sources.push_back({info.name, region_shape(region), info.dtype, read_rows});
    }
    write_torch_file(fmt::format("{}/consolidated.{:02}.pth", folder, part), sources, {});
  }
}

std::string tiny_checkpoint(const TemporaryFolder& folder, const std::string& preset = "tiny") {
  const ModelConfig config = model_preset(preset).value();
  write_meta_checkpoint(folder / "tiny", config, numbered_sources(config));
  return folder / "tiny";
}

/// The sources with one left out, or replaced.
std::vector<TensorSource> without(std::vector<TensorSource> sources, const std::string& name) {
  std::erase_if(sources, [&](const TensorSource& source) { return source.name == name; });
  return sources;
}

TensorSource filled(const std::string& name, const Shape& shape, float value) {
  const std::int64_t columns = shape.numel() / shape[0];
  return {name, shape, DType::kFloat32,
          [value, columns](std::int64_t begin, std::int64_t end, std::byte* destination) {
            for (std::int64_t i = 0; i < (end - begin) * columns; ++i) {
              std::memcpy(destination + i * 4, &value, 4);
            }
          }};
}

TensorSource integers(const std::string& name, const Shape& shape) {
  return {name, shape, DType::kInt64, [](std::int64_t begin, std::int64_t end, std::byte* destination) {
            std::memset(destination, 0, static_cast<std::size_t>(end - begin) * 8);
          }};
}

/// A small file whose tensor has `rows` rows by having strides of 0.
void write_claiming_torch_file(const std::string& path, const std::string& name, std::int64_t rows) {
  TensorPickle tensor;
  tensor.size = pickle_ints({rows, 1});
  tensor.stride = pickle_ints({0, 1});
  OutputFile file(path);
  ZipWriter zip(file);
  zip.add("r/data.pkl", pickle_dict(name, tensor.str()));
  zip.add("r/data/0", std::string(32, 'f'));
  zip.add("r/version", "3\n");
  zip.finish();
  file.commit();
}

/// A Meta folder of exactly these tensors.
std::string write_tensors(const TemporaryFolder& folder, const ModelConfig& config,
                          const std::vector<TensorSource>& sources,
                          const std::vector<SharedTensor>& shared = {}) {
  write_text(folder / "some/params.json", to_params_json(config));
  write_torch_file(folder / "some/consolidated.00.pth", sources, shared);
  return folder / "some";
}

std::string open_refusal(const std::string& folder) {
  return message_of<IoError>([&] { open_checkpoint(folder, std::nullopt); });
}

}  // namespace

TEST_CASE("the row order of Hugging Face files is the one of the formats' example", "[io][checkpoint]") {
  std::vector<std::int64_t> meta_rows(8);
  for (std::int64_t row = 0; row < 8; ++row) {
    meta_rows[static_cast<std::size_t>(hf_row_of(row, 8))] = row;
  }
  CHECK(meta_rows == std::vector<std::int64_t>{0, 2, 4, 6, 1, 3, 5, 7});
  CHECK(hf_row_of(8 + 3, 8) == 8 + 5);
}

TEST_CASE("names map both ways and unknown ones do not", "[io][checkpoint]") {
  for (const TensorInfo& info : expected_tensors(model_preset("tiny").value(), DType::kFloat32)) {
    CHECK(meta_name_of(hf_name_of(info.name).value()) == info.name);
  }
  CHECK(hf_name_of("layers.12.attention.wq.weight") == "model.layers.12.self_attn.q_proj.weight");
  for (const char* name :
       {"", "layers.", "layers.01.ffn_norm.weight", "layers.-1.ffn_norm.weight", "layers.1", "layers.1.",
        "layers.1.attention.wq.bias", "layers.x.ffn_norm.weight"}) {
    CHECK_FALSE(hf_name_of(name).has_value());
    CHECK_FALSE(meta_name_of("model." + std::string(name)).has_value());
  }
}

TEST_CASE("several consolidated files are read as the one model they were cut from", "[io][checkpoint]") {
  const TemporaryFolder folder;
  const auto whole = open_checkpoint(tiny_checkpoint(folder), std::nullopt);
  for (const std::int64_t count : {1, 2, 4}) {
    const std::string path = folder / fmt::format("split{}", count);
    write_split(path, *whole, count);
    const auto split = open_checkpoint(path, std::nullopt);
    CHECK(split->config() == whole->config());
    CHECK(split->tensors() == whole->tensors());
    CHECK(read_all(*split) == read_all(*whole));
  }
}

TEST_CASE("every region read equals the same part of the whole tensor in every layout", "[io][checkpoint]") {
  const TemporaryFolder folder;
  const auto meta = open_checkpoint(tiny_checkpoint(folder), std::nullopt);
  write_hf_checkpoint(folder / "hf", meta->config(), tensor_sources(*meta, std::nullopt));
  write_split(folder / "split", *meta, 4);
  const auto whole = read_all(*meta);
  for (const std::string& path : {folder / "tiny", folder / "hf", folder / "split"}) {
    const auto reader = open_checkpoint(path, std::nullopt);
    for (const TensorInfo& info : reader->tensors()) {
      const std::int64_t columns = info.shape.rank() == 2 ? info.shape[1] : 1;
      Region region = {{info.shape[0] / 3, info.shape[0] - 3}};
      if (info.shape.rank() == 2) {
        region.push_back({columns / 4 - 1, columns / 2 + 3});
      }
      const std::int64_t width = info.shape.rank() == 2 ? region[1].size() : 1;
      const std::int64_t left = info.shape.rank() == 2 ? region[1].begin : 0;
      std::vector<float> part(static_cast<std::size_t>(region_shape(region).numel()));
      reader->read(info.name, region, TensorView(part.data(), DType::kFloat32, region_shape(region)));
      bool is_same = true;
      for (std::int64_t i = 0; i < region[0].size(); ++i) {
        for (std::int64_t j = 0; j < width; ++j) {
          const std::int64_t at = (region[0].begin + i) * columns + left + j;
          is_same = is_same && static_cast<double>(part[static_cast<std::size_t>(i * width + j)]) ==
                                   whole.at(info.name)[static_cast<std::size_t>(at)];
        }
      }
      CHECK(is_same);
    }
  }
}

TEST_CASE("the reading order is the order of the files' bytes", "[io][checkpoint]") {
  const TemporaryFolder folder;
  const auto meta = open_checkpoint(tiny_checkpoint(folder), std::nullopt);
  write_hf_checkpoint(folder / "hf", meta->config(), tensor_sources(*meta, std::nullopt));
  const auto in_order = [](std::vector<StoredTensor> stored) {
    std::sort(stored.begin(), stored.end(),
              [](const StoredTensor& a, const StoredTensor& b) { return a.offset_bytes < b.offset_bytes; });
    std::vector<std::string> names;
    for (const StoredTensor& tensor : stored) {
      names.push_back(meta_name_of(tensor.name).value_or(tensor.name));
    }
    return names;
  };
  const auto hf = open_checkpoint(folder / "hf", std::nullopt);
  CHECK(hf->reading_order() == in_order(read_safetensors(folder / "hf/model.safetensors")));
  CHECK(meta->reading_order() == in_order(read_torch_file(folder / "tiny/consolidated.00.pth")));
  CHECK(hf->reading_order() != meta->reading_order());
  // Of several files one after the other.
  CheckpointWriteOptions options;
  options.shard_limit_bytes = 50'000;
  write_hf_checkpoint(folder / "sharded", meta->config(), tensor_sources(*meta, std::nullopt), options);
  std::vector<std::string> expected;
  std::size_t files = 0;
  for (const std::string& file : file_names(folder / "sharded")) {
    if (file.ends_with(".safetensors")) {
      ++files;
      const std::vector<std::string> names = in_order(read_safetensors(folder / ("sharded/" + file)));
      expected.insert(expected.end(), names.begin(), names.end());
    }
  }
  CHECK(files > 2);
  CHECK(open_checkpoint(folder / "sharded", std::nullopt)->reading_order() == expected);
}

TEST_CASE("every range of rows in Hugging Face's order is read as it is in Meta's", "[io][checkpoint]") {
  const TemporaryFolder folder;
  const auto meta = open_checkpoint(tiny_checkpoint(folder), std::nullopt);
  write_hf_checkpoint(folder / "hf", meta->config(), tensor_sources(*meta, std::nullopt));
  const auto hf = open_checkpoint(folder / "hf", std::nullopt);
  const std::string name = "layers.1.attention.wk.weight";  // four heads of eight rows
  const std::vector<double> whole = read_all(*meta).at(name);
  for (std::int64_t begin = 0; begin <= 32; ++begin) {
    for (std::int64_t end = begin; end <= 32; ++end) {
      std::vector<double> wide(static_cast<std::size_t>((end - begin) * 20), -1.0);
      const TensorView view(wide.data(), DType::kFloat64, {end - begin, 20});
      hf->read(name, {{begin, end}, {5, 16}}, view.slice(1, 3, 14));
      for (std::int64_t i = 0; i < (end - begin) * 20; ++i) {
        const std::int64_t column = i % 20;
        const auto from = static_cast<std::size_t>((begin + i / 20) * 64 + column + 2);
        REQUIRE(wide[static_cast<std::size_t>(i)] == (column < 3 || column >= 14 ? -1.0 : whole[from]));
      }
    }
  }
}

TEST_CASE("several threads read what one reads, and what goes wrong in one of them arrives",
          "[io][checkpoint]") {
  const TemporaryFolder folder;
  const ModelConfig config = {.vocab_size = 16,
                              .hidden_size = 1536,
                              .intermediate_size = 64,
                              .n_layers = 1,
                              .n_heads = 12,
                              .n_kv_heads = 4,
                              .head_dim = 128};
  write_meta_checkpoint(folder / "tiny", config, numbered_sources(config));
  const auto meta = open_checkpoint(folder / "tiny", std::nullopt);
  write_hf_checkpoint(folder / "hf", config, tensor_sources(*meta, std::nullopt));
  const auto hf = open_checkpoint(folder / "hf", std::nullopt);
  const auto one = read_all(*meta);
  set_thread_count(3);
  CHECK(read_all(*meta) == one);
  CHECK(read_all(*hf) == one);
  std::filesystem::resize_file(folder / "hf/model.safetensors", 1 << 20U);
  CHECK_THAT(message_of<IoError>([&] { read_all(*hf); }), Catch::Contains("the file became shorter"));
  set_thread_count(1);
}

TEST_CASE("destinations of other floating types are converted, others refused", "[io][checkpoint]") {
  const TemporaryFolder folder;
  const auto reader = open_checkpoint(tiny_checkpoint(folder), std::nullopt);
  std::vector<BFloat16> values(64);
  reader->read("norm.weight", {{0, 64}}, TensorView(values.data(), DType::kBFloat16, {64}));
  const float number =
      static_cast<float>(reader->tensors().size() - 2);  // norm.weight's place in numbered_sources
  CHECK(to_float(values[0]) == number);
  std::vector<std::int32_t> integers(64);
  CHECK_THROWS_AS(reader->read("norm.weight", {{0, 64}}, TensorView(integers.data(), DType::kInt32, {64})),
                  IoError);
  CHECK_THROWS_AS(reader->read("absent", {{0, 64}}, TensorView(values.data(), DType::kBFloat16, {64})),
                  InternalError);
  CHECK_THROWS_AS(reader->read("norm.weight", {{0, 65}}, TensorView(values.data(), DType::kBFloat16, {65})),
                  InternalError);
}

TEST_CASE("the output is tied when it is absent, shared or byte-equal, and only then", "[io][checkpoint]") {
  ModelConfig config = model_preset("tiny-tied").value();
  const auto sources = numbered_sources(config);
  const auto tied = [&](const std::vector<TensorSource>& tensors, const std::vector<SharedTensor>& shared) {
    const TemporaryFolder folder;
    const auto reader = open_checkpoint(write_tensors(folder, config, tensors, shared), std::nullopt);
    CHECK(reader->config().tie_embeddings == reader->output_tied());
    CHECK_NOTHROW(check_tensors(*reader, expected_tensors(reader->config(), DType::kFloat32)));
    return reader->output_tied();
  };
  CHECK(tied(sources, {}));
  CHECK(tied(sources, {{kOutputName, kEmbeddingName}}));
  auto with_copy = sources;
  with_copy.push_back(sources.front());
  with_copy.back().name = kOutputName;
  CHECK(tied(with_copy, {}));
  auto with_other = sources;
  with_other.push_back(filled(kOutputName, sources.front().shape, 0.5F));
  CHECK_FALSE(tied(with_other, {}));
}

TEST_CASE("tie_embeddings overrides what the tensors say", "[io][checkpoint]") {
  const TemporaryFolder folder;
  const auto untied = open_checkpoint(tiny_checkpoint(folder, "tiny-tied"), std::nullopt, Tie::kUntied);
  CHECK_FALSE(untied->output_tied());
  auto all = read_all(*untied);
  CHECK(all.at(kOutputName) == all.at(kEmbeddingName));
  std::filesystem::remove_all(folder / "tiny");
  const auto tied = open_checkpoint(tiny_checkpoint(folder), std::nullopt, Tie::kTied);
  CHECK(tied->output_tied());
  CHECK(read_all(*tied).count(kOutputName) == 0);
}

TEST_CASE("a model without an output tensor gets a copy of the embedding when it is to be untied",
          "[io][checkpoint]") {
  const TemporaryFolder folder;
  const ModelConfig config = model_preset("tiny-tied").value();
  write_hf_checkpoint(folder / "hf", config, numbered_sources(config));
  const auto reader = open_checkpoint(folder / "hf", std::nullopt, Tie::kUntied);
  const auto all = read_all(*reader);
  CHECK(all.at(kOutputName) == all.at(kEmbeddingName));
  CHECK_NOTHROW(check_tensors(*reader, expected_tensors(reader->config(), DType::kFloat32)));
}

TEST_CASE("one error lists every missing, extra, mis-shaped and mis-typed tensor", "[io][checkpoint]") {
  const TemporaryFolder folder;
  const ModelConfig config = model_preset("tiny").value();
  auto sources = without(without(numbered_sources(config), "norm.weight"), "layers.1.attention.wk.weight");
  sources.push_back(filled("layers.2.ffn_norm.weight", {64}, 1.0F));
  sources.push_back(filled("adapter", {3, 2}, 1.0F));
  sources.push_back(filled("rope.freqs", {4}, 1.0F));  // old files have it; it is no parameter
  sources = without(sources, "layers.0.ffn_norm.weight");
  sources.push_back(filled("layers.0.ffn_norm.weight", {65}, 1.0F));
  sources = without(sources, "layers.1.ffn_norm.weight");
  sources.push_back(integers("layers.1.ffn_norm.weight", {64}));
  const auto reader = open_checkpoint(write_tensors(folder, config, sources), std::nullopt);
  const std::string message = message_of<IoError>(
      [&] { check_tensors(*reader, expected_tensors(reader->config(), DType::kFloat32)); });
  CHECK_THAT(message, Catch::Contains("6 differences"));
  CHECK_THAT(message, Catch::Contains("missing: norm.weight [64]"));
  CHECK_THAT(message, Catch::Contains("missing: layers.1.attention.wk.weight [32, 64]"));
  CHECK_THAT(message, Catch::Contains("unknown: layers.2.ffn_norm.weight [64]"));
  CHECK_THAT(message, Catch::Contains("unknown: adapter [3, 2]"));
  CHECK_THAT(message, Catch::Contains("wrong shape: layers.0.ffn_norm.weight is [65], not [64]"));
  CHECK_THAT(message, Catch::Contains("wrong type: layers.1.ffn_norm.weight is int64"));
  CHECK_THAT(message, !Catch::Contains("rope.freqs"));
}

TEST_CASE("files that do not belong together are refused", "[io][checkpoint]") {
  const TemporaryFolder folder;
  const auto whole = open_checkpoint(tiny_checkpoint(folder), std::nullopt);
  write_split(folder / "a", *whole, 4);
  std::filesystem::remove(folder / "a/consolidated.02.pth");
  CHECK_THAT(open_refusal(folder / "a"), Catch::Contains("consolidated.02.pth was expected"));
  std::filesystem::rename(folder / "a/consolidated.03.pth", folder / "a/consolidated.02.pth");
  CHECK_THAT(open_refusal(folder / "a"), Catch::Contains("3 files") && Catch::Contains("4 kv heads"));
}

TEST_CASE("one error lists every tensor whose parts in several files do not fit", "[io][checkpoint]") {
  const TemporaryFolder folder;
  const ModelConfig config = model_preset("tiny").value();
  write_text(folder / "c/params.json", to_params_json(config));
  write_torch_file(folder / "c/consolidated.00.pth",
                   {filled("norm.weight", {64}, 1.0F), filled("layers.0.ffn_norm.weight", {64}, 1.0F),
                    filled("layers.0.attention.wq.weight", {32, 64}, 1.0F),
                    filled("layers.0.attention.wo.weight", {64, 32}, 1.0F),
                    filled("layers.1.ffn_norm.weight", {64}, 1.0F), filled("deep", {1, 1, 1, 2}, 1.0F)},
                   {});
  write_torch_file(folder / "c/consolidated.01.pth",
                   {filled("norm.weight", {63}, 1.0F), integers("layers.0.ffn_norm.weight", {64}),
                    filled("layers.0.attention.wq.weight", {32, 60}, 1.0F),
                    filled("layers.0.attention.wo.weight", {64, 32}, 1.0F),
                    filled("layers.0.attention_norm.weight", {64}, 1.0F), filled("deep", {2}, 1.0F)},
                   {});
  const std::string message = open_refusal(folder / "c");
  CHECK_THAT(message, Catch::Contains("6 problems"));
  CHECK_THAT(message, Catch::Contains("'norm.weight' is float32 [63], which does not fit float32 [64] of "
                                      "consolidated.00.pth"));
  CHECK_THAT(message,
             Catch::Contains("'layers.0.ffn_norm.weight' is int64 [64], which does not fit float32"));
  CHECK_THAT(message, Catch::Contains("'layers.0.attention.wq.weight' is float32 [32, 60]"));
  CHECK_THAT(message, Catch::Contains("'layers.1.ffn_norm.weight' is in 1 of 2 files, not in "
                                      "consolidated.01.pth"));
  CHECK_THAT(message, Catch::Contains("'layers.0.attention_norm.weight' is in 1 of 2 files, not in "
                                      "consolidated.00.pth"));
  CHECK_THAT(message, Catch::Contains("'deep'"));
  CHECK_THAT(message, !Catch::Contains("wo.weight"));
}

TEST_CASE("sizes that small files claim and that add up to more than an integer holds are refused",
          "[io][checkpoint]") {
  const TemporaryFolder folder;
  const ModelConfig config = model_preset("tiny").value();
  write_text(folder / "c/params.json", to_params_json(config));
  for (const std::string name : {"consolidated.00.pth", "consolidated.01.pth"}) {
    write_claiming_torch_file(folder / ("c/" + name), "output.weight", std::int64_t{1} << 60U);
  }
  // Already the unpickler wants a claim to be paid for by bytes.
  CHECK_THAT(open_refusal(folder / "c"), Catch::Contains("a tensor of size (1152921504606846976, 1) has more "
                                                         "elements than its storage, 8"));
}

TEST_CASE("Meta's names in a Hugging Face folder are refused: their row order would be a guess",
          "[io][checkpoint]") {
  const TemporaryFolder folder;
  const ModelConfig config = model_preset("tiny").value();
  write_text(folder / "hf/config.json", to_hf_config(config, DType::kFloat32));
  write_safetensors(folder / "hf/model.safetensors", numbered_sources(config));
  const std::string message = open_refusal(folder / "hf");
  CHECK_THAT(message, Catch::Contains(fmt::format("{} problems", numbered_sources(config).size())));
  CHECK_THAT(message, Catch::Contains("'layers.1.attention.wq.weight' has Meta's name; here it would be "
                                      "'model.layers.1.self_attn.q_proj.weight'"));
}

TEST_CASE("a folder is recognised by its files, or refused with what is missing", "[io][checkpoint]") {
  const TemporaryFolder folder;
  const ModelConfig config = model_preset("tiny").value();
  CHECK_THAT(open_refusal(folder / "absent"), Catch::Contains("absent") && Catch::Contains("No such file"));
  write_text(folder / "empty/notes.txt", "");
  CHECK_THAT(open_refusal(folder / "empty"), Catch::Contains("is no checkpoint"));
  write_text(folder / "empty/pytorch_model.bin", "");
  CHECK_THAT(open_refusal(folder / "empty"), Catch::Contains("pytorch_model*.bin is not read"));
  write_hf_checkpoint(folder / "hf", config, numbered_sources(config));
  CHECK(open_checkpoint(folder / "hf", std::nullopt)->layout() == CheckpointLayout::kHuggingFace);
  const std::string both = tiny_checkpoint(folder);
  CHECK(open_checkpoint(both, std::nullopt)->layout() == CheckpointLayout::kMeta);
  std::filesystem::copy(folder / "hf", both);
  CHECK_THAT(open_refusal(both), Catch::Contains("has both"));
  std::filesystem::remove(folder / "hf/config.json");
  CHECK_THAT(open_refusal(folder / "hf"), Catch::Contains("no config.json"));
}

TEST_CASE("vocab_size -1 in params.json is taken from the embedding", "[io][checkpoint]") {
  const TemporaryFolder folder;
  const std::string path = tiny_checkpoint(folder);
  ModelConfig config = model_preset("tiny").value();
  config.vocab_size = -1;
  write_text(path + "/params.json", to_params_json(config));
  CHECK(open_checkpoint(path, std::nullopt)->config().vocab_size == 256);
}
