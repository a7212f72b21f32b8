#include "caravan/io/training_model.h"

#include <catch2/catch.hpp>
#include <filesystem>

#include "caravan/core/error.h"
#include "caravan/io/checkpoint_store.h"
#include "caravan/io/llama_names.h"
#include "caravan/io/output_file.h"
#include "caravan/io/params_json.h"
#include "caravan/io/sharded_checkpoint_writer.h"
#include "support/temporary_folder.h"

using namespace caravan;
using caravan::test::TemporaryFolder;
using Catch::Matchers::Contains;

namespace {

/// A training checkpoint of `model` by one rank, element i of tensor t being 1000 t + i; returns its folder.
std::string write_checkpoint(const std::string& parent, const ModelConfig& model, const std::string& shape) {
  std::vector<std::vector<float>> memory;
  std::vector<ShardSource> sources;
  for (const char* prefix : {"", "optimizer.exp_avg.", "optimizer.exp_avg_sq."}) {
    for (const TensorInfo& info : expected_tensors(model, DType::kFloat32)) {
      auto& values = memory.emplace_back(static_cast<std::size_t>(info.shape.numel()));
      for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = static_cast<float>(1000 * (memory.size() - 1) + i);
      }
      ShardSource& source = sources.emplace_back();
      source.tensor = {prefix + info.name, info.shape, DType::kFloat32};
      source.region = full_region(info.shape);
      source.data = reinterpret_cast<const std::byte*>(values.data());
    }
  }
  std::string path = parent + "/" + step_folder_name(5);
  OutputFolder folder(path, IfExists::kFail);
  ShardedCheckpointWriter writer({"0123456789abcdef", 5, 0}, sources);
  writer.open(folder.temporary_path());
  TrainingState state;
  state.step = 5;
  state.extra = {{shape, to_params_json(model)}};
  write_manifest(folder.temporary_path(), merge_tables("0123456789abcdef", state, {writer.write()}));
  folder.commit();
  return path;
}

float value_at(const CheckpointReader& reader, const std::string& name, std::int64_t row) {
  float value = 0.0F;
  reader.read(name, {{row, row + 1}, {0, 1}}, TensorView(&value, DType::kFloat32, {1, 1}));
  return value;
}

}  // namespace

TEST_CASE("the parameters of a training checkpoint are a model, its optimizer is not",
          "[io][training_model]") {
  const TemporaryFolder folder;
  for (const char* preset : {"tiny", "tiny-tied"}) {
    const ModelConfig model = *model_preset(preset);
    const std::string path = write_checkpoint(folder / preset, model, kTrainingModelKey);
    const auto reader = open_checkpoint(path, std::nullopt);
    CHECK(reader->layout() == CheckpointLayout::kTraining);
    CHECK(reader->config() == model);
    CHECK(reader->output_tied() == model.tie_embeddings);
    check_tensors(*reader, expected_tensors(model, DType::kFloat32));
    CHECK(value_at(*reader, "layers.0.attention.wq.weight", 3) ==
          2000.0F + 3.0F * static_cast<float>(model.hidden_size));
  }
}

TEST_CASE("the user decides whether the output layer of a training checkpoint is the embedding",
          "[io][training_model]") {
  const TemporaryFolder folder;
  const std::string tied = write_checkpoint(folder / "tied", *model_preset("tiny-tied"), kTrainingModelKey);
  const auto untied = open_checkpoint(tied, std::nullopt, Tie::kUntied);
  check_tensors(*untied, expected_tensors(*model_preset("tiny"), DType::kFloat32));
  CHECK(value_at(*untied, kOutputName, 1) == value_at(*untied, kEmbeddingName, 1));
  const std::string own = write_checkpoint(folder / "own", *model_preset("tiny"), kTrainingModelKey);
  check_tensors(*open_checkpoint(own, std::nullopt, Tie::kTied),
                expected_tensors(*model_preset("tiny-tied"), DType::kFloat32));
}

TEST_CASE("a training checkpoint that does not say its model is refused", "[io][training_model]") {
  const TemporaryFolder folder;
  const std::string path = write_checkpoint(folder / "a", *model_preset("tiny"), "other");
  CHECK_THROWS_WITH(open_checkpoint(path, std::nullopt),
                    Contains("does not say what model it holds; only resume can use it"));
}
