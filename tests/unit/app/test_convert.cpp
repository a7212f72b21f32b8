#include <algorithm>
#include <catch2/catch.hpp>

#include "caravan/core/error.h"
#include "caravan/io/checkpoint_reader.h"
#include "caravan/io/checkpoint_writer.h"
#include "src/app/commands.h"
#include "support/checkpoints.h"
#include "support/temporary_folder.h"

using namespace caravan;
using namespace caravan::test;

namespace {

void run_convert(std::vector<std::string> arguments) {
  CLI::App program("test", "caravan");
  app::add_convert_command(program);
  arguments.insert(arguments.begin(), "convert");
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes a vector from its back
  program.parse(arguments);
}

}  // namespace

TEST_CASE("convert goes either way without a bit changed and takes the tokenizer along", "[app][convert]") {
  const TemporaryFolder folder;
  for (const std::string preset : {"tiny", "tiny-tied"}) {
    const ModelConfig config = model_preset(preset).value();
    const std::string meta = folder / preset;
    write_meta_checkpoint(meta, config, numbered_sources(config));
    write_text(meta + "/tokenizer.model", "IQ== 0\n");
    run_convert({"--in", meta, "--out", meta + "-hf", "--to", "hf"});
    run_convert({"--in", meta + "-hf", "--out", meta + "-back", "--to", "meta"});
    const auto expected = read_all(*open_checkpoint(meta, std::nullopt));
    CHECK(open_checkpoint(meta + "-hf", std::nullopt)->layout() == CheckpointLayout::kHuggingFace);
    CHECK(read_all(*open_checkpoint(meta + "-hf", std::nullopt)) == expected);
    CHECK(read_all(*open_checkpoint(meta + "-back", std::nullopt)) == expected);
    CHECK(open_checkpoint(meta + "-back", std::nullopt)->config() == config);
    CHECK(read_text(meta + "-back/tokenizer.model") == "IQ== 0\n");
    CHECK(read_text(meta + "-back/consolidated.00.pth") == read_text(meta + "/consolidated.00.pth"));
  }
}

TEST_CASE("convert changes the element type when asked and refuses an existing folder", "[app][convert]") {
  const TemporaryFolder folder;
  const ModelConfig config = model_preset("tiny").value();
  write_meta_checkpoint(folder / "in", config, numbered_sources(config));
  run_convert({"--in", folder / "in", "--out", folder / "out", "--to", "hf", "--dtype", "bfloat16"});
  const auto reader = open_checkpoint(folder / "out", std::nullopt);
  for (const TensorInfo& info : reader->tensors()) {
    CHECK(info.dtype == DType::kBFloat16);
  }
  CHECK_THROWS_AS(run_convert({"--in", folder / "in", "--out", folder / "out", "--to", "hf"}), IoError);
  CHECK_NOTHROW(run_convert({"--in", folder / "in", "--out", folder / "out", "--to", "hf", "--overwrite"}));
  CHECK(open_checkpoint(folder / "out", std::nullopt)->tensors().front().dtype == DType::kFloat32);
  // A folder may even be replaced by its own conversion.
  const auto before = read_all(*open_checkpoint(folder / "out", std::nullopt));
  run_convert({"--in", folder / "out", "--out", folder / "out", "--to", "meta", "--overwrite"});
  CHECK(read_all(*open_checkpoint(folder / "out", std::nullopt)) == before);
}

TEST_CASE("convert refuses a checkpoint that is not the model its configuration says", "[app][convert]") {
  const TemporaryFolder folder;
  const ModelConfig config = model_preset("tiny").value();
  write_meta_checkpoint(folder / "in", config, numbered_sources(config));
  std::string params = read_text(folder / "in/params.json");
  params.replace(params.find("\"n_layers\": 2"), 13, "\"n_layers\": 3");
  write_text(folder / "in/params.json", params);
  CHECK_THROWS_WITH(run_convert({"--in", folder / "in", "--out", folder / "out", "--to", "hf"}),
                    Catch::Contains("missing: layers.2.attention.wq.weight"));
  CHECK_FALSE(std::filesystem::exists(folder / "out"));
}
