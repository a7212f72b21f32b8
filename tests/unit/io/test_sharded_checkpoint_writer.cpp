#include "caravan/io/sharded_checkpoint_writer.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>

#include "caravan/core/error.h"
#include "caravan/io/checkpoint_store.h"
#include "caravan/io/safetensors.h"
#include "support/checkpoints.h"
#include "support/sharded_checkpoints.h"
#include "support/temporary_folder.h"

using namespace caravan;
using caravan::test::TemporaryFolder;
namespace fs = std::filesystem;

namespace {

constexpr const char* kId = "0123456789abcdef";

ShardSource whole(const std::string& name, const std::vector<float>& values) {
  const auto size = static_cast<std::int64_t>(values.size());
  return {.tensor = {name, {size}, DType::kFloat32},
          .region = {{0, size}},
          .data = reinterpret_cast<const std::byte*>(values.data()),
          .read = {}};
}

}  // namespace

TEST_CASE("a checkpoint is a manifest and a file per rank that owns something", "[io][sharded]") {
  const TemporaryFolder folder;
  const std::string path = test::write_sample(folder.path().string());
  CHECK(fs::path(path).filename() == "step_00000100");
  CHECK(test::file_names(path) ==
        std::vector<std::string>{"manifest.json", "shard_00000.safetensors", "shard_00001.safetensors",
                                 "shard_00002.safetensors", "shard_00003.safetensors"});
}

TEST_CASE("a rank that owns nothing writes no file", "[io][sharded]") {
  const TemporaryFolder folder;
  ShardedCheckpointWriter writer(
      {kId, 1, 2}, {{.tensor = {"a", {4, 2}, DType::kFloat32}, .region = {{1, 1}, {0, 2}}, .read = {}}});
  CHECK(writer.bytes() == 0);
  writer.open(folder.path().string());
  const CheckpointTables tables = writer.write();
  CHECK(tables.files.empty());
  CHECK(tables.tensors.size() == 1);
  CHECK(fs::is_empty(folder.path()));
}

TEST_CASE("a shard is a safetensors file with an entry per region", "[io][sharded]") {
  const TemporaryFolder folder;
  const std::string path = test::write_sample(folder.path().string());
  std::vector<std::string> names;
  for (const StoredTensor& tensor : read_safetensors(path + "/shard_00001.safetensors")) {
    names.push_back(tensor.name);
  }
  CHECK(names == std::vector<std::string>{
                     "layers.0.feed_forward.w1.weight[0:3, 3:10]", "tok_embeddings.weight[1:3, 0:6]",
                     "layers.0.attention.wo.weight[0:6, 1:5]", "optimizer.exp_avg.norm.weight[0:1]",
                     "optimizer.exp_avg_sq.cube[0:3, 2:4, 0:5]", "half[1:3]"});
}

TEST_CASE("large regions become several pieces", "[io][sharded]") {
  const TemporaryFolder folder;
  test::write_sample(folder.path().string(), {.ranks = 1, .max_piece_bytes = 100});
  ShardedCheckpointReader reader(folder / "step_00000100");
  std::int64_t embedding_pieces = 0;
  for (const CheckpointPiece& piece : reader.manifest().tables.pieces) {
    CHECK((piece.end - piece.begin <= 100 || piece.region[0].size() == 1));
    embedding_pieces += reader.manifest().tables.tensors[static_cast<std::size_t>(piece.tensor)].name ==
                                "tok_embeddings.weight"
                            ? 1
                            : 0;
  }
  CHECK(embedding_pieces == 4);  // 13 rows of 24 bytes, four in a piece
  CHECK(test::holds_sample(reader, 1));
}

TEST_CASE("contents may come from a function", "[io][sharded]") {
  const TemporaryFolder folder;
  const std::vector<float> values = {1, 2, 3, 4, 5, 6, 7};
  std::int64_t asked = 0;
  ShardSource source = whole("a", values);
  source.data = nullptr;
  source.read = [&](std::int64_t offset, std::span<std::byte> destination) {
    CHECK(offset == asked);
    asked += static_cast<std::int64_t>(destination.size());
    std::memcpy(destination.data(), reinterpret_cast<const std::byte*>(values.data()) + offset,
                destination.size());
  };
  for (const bool is_staged : {false, true}) {
    CAPTURE(is_staged);
    asked = 0;
    ShardedCheckpointWriter writer({kId, 0, 0}, {source}, 8);
    if (is_staged) {
      writer.stage();
      CHECK(asked == 28);
    }
    writer.open(folder.path().string());
    const CheckpointTables tables = writer.write();
    CHECK(asked == 28);
    CHECK(tables.pieces.size() == 4);
    write_manifest(folder.path().string(), merge_tables(kId, {}, {tables}));
    ShardedCheckpointReader reader(folder.path().string());
    std::vector<float> read(7);
    reader.read("a", {{0, 7}}, TensorView(read.data(), DType::kFloat32, {7}));
    CHECK(read == values);
  }
}

TEST_CASE("staged contents are those of the moment of staging", "[io][sharded]") {
  const TemporaryFolder folder;
  std::vector<float> values = {1, 2, 3};
  ShardedCheckpointWriter writer({kId, 0, 0}, {whole("a", values)});
  writer.stage();
  values = {7, 8, 9};
  writer.open(folder.path().string());
  write_manifest(folder.path().string(), merge_tables(kId, {}, {writer.write()}));
  ShardedCheckpointReader reader(folder.path().string());
  std::vector<float> read(3);
  reader.read("a", {{0, 3}}, TensorView(read.data(), DType::kFloat32, {3}));
  CHECK(read == std::vector<float>{1, 2, 3});
}

TEST_CASE("a writer that is dropped leaves no file", "[io][sharded]") {
  const TemporaryFolder folder;
  const std::vector<float> values = {1, 2, 3};
  {
    ShardedCheckpointWriter writer({kId, 1, 0}, {whole("a", values)});
    writer.open(folder.path().string());
    CHECK_FALSE(fs::is_empty(folder.path()));
  }
  CHECK(fs::is_empty(folder.path()));
}

TEST_CASE("a folder that is not there is an error before anything is written", "[io][sharded]") {
  const std::vector<float> values = {1, 2, 3};
  ShardedCheckpointWriter writer({kId, 1, 0}, {whole("a", values)});
  CHECK_THROWS_WITH(writer.open("/nowhere/at/all"),
                    Catch::Contains("/nowhere/at/all/shard_00000.safetensors: "
                                    "cannot be created"));
}

TEST_CASE("regions outside their tensor and wrong ids are bugs", "[io][sharded]") {
  const std::vector<float> values = {1, 2, 3};
  ShardSource source = whole("a", values);
  source.region = {{0, 4}};
  CHECK_THROWS_AS(ShardedCheckpointWriter({kId, 1, 0}, {source}), InternalError);
  source.region = {{0, 3}, {0, 1}};
  CHECK_THROWS_AS(ShardedCheckpointWriter({kId, 1, 0}, {source}), InternalError);
  CHECK_THROWS_AS(ShardedCheckpointWriter({"abc", 1, 0}, {whole("a", values)}), InternalError);
}

TEST_CASE("ranks that disagree, overlap or leave something out write no manifest", "[io][sharded]") {
  const TemporaryFolder folder;
  const std::vector<float> values = {1, 2, 3, 4};
  const auto report = [&](std::int64_t rank, const Region& region, DType dtype = DType::kFloat32) {
    ShardSource source = whole("a", values);
    source.tensor.dtype = dtype;
    source.region = region;
    ShardedCheckpointWriter writer({kId, 1, rank}, {source});
    writer.open(folder.path().string());
    return writer.write();
  };
  CHECK_NOTHROW(merge_tables(kId, {}, {report(0, {{0, 3}}), report(1, {{3, 4}})}));
  CHECK_THROWS_WITH(merge_tables(kId, {}, {report(0, {{0, 3}}), report(1, {{2, 4}})}),
                    Catch::Contains("'a' of shape [4]: [0:3] and [2:4] overlap"));
  CHECK_THROWS_WITH(merge_tables(kId, {}, {report(0, {{0, 2}}), report(1, {{3, 4}})}),
                    Catch::Contains("only 3 of 4 elements are there"));
  CHECK_THROWS_WITH(merge_tables(kId, {}, {report(0, {{0, 3}}), report(1, {{3, 4}}, DType::kInt32)}),
                    Catch::Contains("ranks write tensor a as float32 [4] and as int32 [4]"));
  CHECK_THROWS_WITH(merge_tables(kId, {}, {report(0, {{0, 3}}), report(0, {{3, 4}})}),
                    Catch::Contains("file 'shard_00000.safetensors' is listed twice"));
}
