#include "caravan/io/checkpoint_writer.h"

#include <sys/resource.h>

#include <catch2/catch.hpp>
#include <csignal>

#include "caravan/core/error.h"
#include "caravan/io/checkpoint_reader.h"
#include "caravan/io/safetensors.h"
#include "caravan/io/torch_file.h"
#include "support/checkpoints.h"
#include "support/shared_files.h"
#include "support/temporary_folder.h"

using namespace caravan;
using namespace caravan::test;

TEST_CASE("the golden checkpoints go from Meta to Hugging Face and back without a bit changed",
          "[io][checkpoint]") {
  for (const std::string name : {"tiny-llama3", "tiny-llama3-tied"}) {
    const auto meta = shared_path("goldens/" + name + "/meta");
    const auto hf = shared_path("goldens/" + name + "/hf");
    if (!meta || !hf) {
      return;
    }
    const auto first = open_checkpoint(*meta, std::nullopt);
    CHECK(first->output_tied() == (name == "tiny-llama3-tied"));
    CHECK_NOTHROW(check_tensors(*first, expected_tensors(first->config(), DType::kFloat32)));
    const auto expected = read_all(*first);
    CHECK(read_all(*open_checkpoint(*hf, std::nullopt)) == expected);
    CHECK(open_checkpoint(*hf, std::nullopt)->config() == first->config());

    const TemporaryFolder folder;
    write_hf_checkpoint(folder / "hf", first->config(), tensor_sources(*first, DType::kFloat32));
    const auto second = open_checkpoint(folder / "hf", std::nullopt);
    CHECK(second->layout() == CheckpointLayout::kHuggingFace);
    CHECK(second->config() == first->config());
    CHECK(read_all(*second) == expected);
    write_meta_checkpoint(folder / "meta", second->config(), tensor_sources(*second, DType::kFloat32));
    const auto third = open_checkpoint(folder / "meta", std::nullopt);
    CHECK(third->layout() == CheckpointLayout::kMeta);
    CHECK(third->config() == first->config());
    CHECK(read_all(*third) == expected);
  }
}

TEST_CASE("every file tensor of a written Hugging Face folder equals that of the golden one",
          "[io][checkpoint]") {
  const auto meta = shared_path("goldens/tiny-llama3/meta");
  const auto hf = shared_path("goldens/tiny-llama3/hf/model.safetensors");
  if (!meta || !hf) {
    return;
  }
  const TemporaryFolder folder;
  const auto reader = open_checkpoint(*meta, std::nullopt);
  write_hf_checkpoint(folder / "hf", reader->config(), tensor_sources(*reader, DType::kFloat32));
  std::map<std::string, StoredTensor> golden;
  for (const StoredTensor& tensor : read_safetensors(*hf)) {
    golden[tensor.name] = tensor;
  }
  const auto written = read_safetensors(folder / "hf/model.safetensors");
  REQUIRE(written.size() == golden.size());
  for (const StoredTensor& tensor : written) {
    REQUIRE(golden.contains(tensor.name));
    const Shape shape = tensor.checked_shape();
    std::vector<float> ours(static_cast<std::size_t>(shape.numel()));
    std::vector<float> theirs(ours.size());
    read_region(tensor, full_region(shape), TensorView(ours.data(), DType::kFloat32, shape));
    read_region(golden[tensor.name], full_region(shape), TensorView(theirs.data(), DType::kFloat32, shape));
    CHECK(ours == theirs);
  }
}

TEST_CASE(
    "a tied model is written with one storage for both layers in Meta's layout and without lm_head in "
    "Hugging Face's",
    "[io][checkpoint]") {
  const TemporaryFolder folder;
  const ModelConfig config = model_preset("tiny-tied").value();
  write_meta_checkpoint(folder / "meta", config, numbered_sources(config));
  write_hf_checkpoint(folder / "hf", config, numbered_sources(config));
  const auto tensors = read_torch_file(folder / "meta/consolidated.00.pth");
  CHECK(tensors.back().name == kOutputName);
  CHECK(is_same_memory(tensors.front(), tensors.back()));
  for (const StoredTensor& tensor : read_safetensors(folder / "hf/model.safetensors")) {
    CHECK(tensor.name != "lm_head.weight");
  }
  CHECK(open_checkpoint(folder / "meta", std::nullopt)->output_tied());
  CHECK(open_checkpoint(folder / "hf", std::nullopt)->output_tied());
}

TEST_CASE("a checkpoint over the shard limit is written as numbered files with an index",
          "[io][checkpoint]") {
  const TemporaryFolder folder;
  const ModelConfig config = model_preset("tiny").value();
  CheckpointWriteOptions options;
  options.shard_limit_bytes = 100'000;
  write_hf_checkpoint(folder / "one", config, numbered_sources(config));
  write_hf_checkpoint(folder / "many", config, numbered_sources(config), options);
  CHECK(std::filesystem::exists(folder / "many/model.safetensors.index.json"));
  CHECK_FALSE(std::filesystem::exists(folder / "many/model.safetensors"));
  for (const auto& entry : std::filesystem::directory_iterator(folder / "many")) {
    CHECK(entry.file_size() < 110'000);
  }
  CHECK(read_all(*open_checkpoint(folder / "many", std::nullopt)) ==
        read_all(*open_checkpoint(folder / "one", std::nullopt)));
}

TEST_CASE(
    "an existing folder is refused, and replaced as a whole when that is allowed and it is a checkpoint",
    "[io][checkpoint]") {
  const TemporaryFolder folder;
  const ModelConfig config = model_preset("tiny").value();
  write_text(folder / "out/old.txt", "precious");
  CHECK_THROWS_WITH(write_meta_checkpoint(folder / "out", config, numbered_sources(config)),
                    Catch::Contains("exists already"));
  CHECK(read_text(folder / "out/old.txt") == "precious");
  write_text(folder / "tokenizer.model", "IQ== 0\n");
  CheckpointWriteOptions options;
  options.if_exists = IfExists::kReplace;
  options.copied_files = {folder / "tokenizer.model"};
  options.add_files = [](const std::string& target) { write_text(target + "/caravan.json", "{}"); };
  CHECK_THROWS_WITH(write_meta_checkpoint(folder / "out", config, numbered_sources(config), options),
                    Catch::Contains("old.txt is no file of a checkpoint"));
  CHECK(read_text(folder / "out/old.txt") == "precious");
  std::filesystem::rename(folder / "out/old.txt", folder / "out/consolidated.07.pth");
  write_meta_checkpoint(folder / "out/", config, numbered_sources(config), options);
  CHECK_FALSE(std::filesystem::exists(folder / "out/consolidated.07.pth"));
  CHECK(read_text(folder / "out/tokenizer.model") == "IQ== 0\n");
  CHECK(read_text(folder / "out/caravan.json") == "{}");
  CHECK(file_names(folder.path()) == std::vector<std::string>{"out", "tokenizer.model"});
}

TEST_CASE("a write that fails half way says why and leaves nothing behind", "[io][checkpoint]") {
  const TemporaryFolder folder;
  const ModelConfig config = model_preset("tiny").value();
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{50'000, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  std::string message;
  try {
    write_meta_checkpoint(folder / "out", config, numbered_sources(config));
  } catch (const IoError& error) {
    message = error.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, old_handler);
  CHECK_THAT(message, Catch::Contains("consolidated.00.pth") && Catch::Contains("File too large"));
  CHECK(file_names(folder.path()).empty());
}

TEST_CASE("sources that are not the model's parameters are refused", "[io][checkpoint]") {
  const TemporaryFolder folder;
  const ModelConfig config = model_preset("tiny").value();
  auto sources = numbered_sources(config);
  sources.pop_back();
  CHECK_THROWS_WITH(write_meta_checkpoint(folder / "out", config, sources), Catch::Contains("output.weight"));
  sources = numbered_sources(config);
  sources[0].shape = {1, 2};
  CHECK_THROWS_AS(write_hf_checkpoint(folder / "out", config, sources), InternalError);
  CHECK(file_names(folder.path()).empty());
}
