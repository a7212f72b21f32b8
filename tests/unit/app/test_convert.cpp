#include <algorithm>
#include <catch2/catch.hpp>

#include "caravan/core/error.h"
#include "caravan/io/checkpoint_reader.h"
#include "caravan/io/checkpoint_writer.h"
#include "caravan/io/meta_parts.h"
#include "caravan/io/torch_file.h"
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

TEST_CASE("convert splits a model into parts and merges them without a bit changed", "[app][convert]") {
  const TemporaryFolder folder;
  for (const std::string preset : {"tiny", "tiny-tied"}) {
    CAPTURE(preset);
    const ModelConfig config = model_preset(preset).value();
    const std::string whole = folder / preset;
    write_meta_checkpoint(whole, config, numbered_sources(config));
    const auto expected = read_all(*open_checkpoint(whole, std::nullopt));
    run_convert({"--in", whole, "--out", whole + "-2", "--tp", "2"});
    CHECK(file_names(whole + "-2") ==
          std::vector<std::string>{"consolidated.00.pth", "consolidated.01.pth", "params.json"});
    CHECK(read_all(*open_checkpoint(whole + "-2", std::nullopt)) == expected);
    CHECK(open_checkpoint(whole + "-2", std::nullopt)->config() == config);
    run_convert({"--in", whole + "-2", "--out", whole + "-1", "--tp", "1"});
    CHECK(read_text(whole + "-1/consolidated.00.pth") == read_text(whole + "/consolidated.00.pth"));
    run_convert({"--in", whole + "-2", "--out", whole + "-4", "--tp", "4"});
    CHECK(read_all(*open_checkpoint(whole + "-4", std::nullopt)) == expected);
    run_convert({"--in", whole + "-4", "--out", whole + "-4-2", "--tp", "2"});
    CHECK(read_text(whole + "-4-2/consolidated.01.pth") == read_text(whole + "-2/consolidated.01.pth"));
    // By way of the other layout, with its other order of rows in wq and wk.
    run_convert({"--in", whole + "-2", "--out", whole + "-hf", "--to", "hf"});
    run_convert({"--in", whole + "-hf", "--out", whole + "-hf-2", "--to", "meta", "--tp", "2"});
    for (const char* name : {"/consolidated.00.pth", "/consolidated.01.pth", "/params.json"}) {
      CHECK(read_text(whole + "-hf-2" + name) == read_text(whole + "-2" + name));
    }
  }
}

TEST_CASE("each part holds its heads, rows and columns, and all of the norms", "[app][convert]") {
  const TemporaryFolder folder;
  const ModelConfig config = model_preset("tiny").value();
  write_meta_checkpoint(folder / "in", config, numbered_sources(config));
  run_convert({"--in", folder / "in", "--out", folder / "out", "--tp", "2"});
  const auto whole = open_checkpoint(folder / "in", std::nullopt);
  for (const std::int64_t part : {0, 1}) {
    const auto tensors = read_torch_file(folder / ("out/consolidated.0" + std::to_string(part) + ".pth"));
    CHECK(tensors.size() == whole->tensors().size());
    for (const StoredTensor& tensor : tensors) {
      CAPTURE(part, tensor.name);
      const auto info = std::find_if(whole->tensors().begin(), whole->tensors().end(),
                                     [&](const TensorInfo& other) { return other.name == tensor.name; });
      REQUIRE(info != whole->tensors().end());
      Region region = full_region(info->shape);
      if (tensor.name.find("norm") == std::string::npos) {
        const bool is_by_columns = tensor.name.ends_with("wo.weight") || tensor.name.ends_with("w2.weight");
        Range& range = region[is_by_columns ? 1 : 0];
        range = {part * range.end / 2, (part + 1) * range.end / 2};
      }
      REQUIRE(tensor.checked_shape() == region_shape(region));
      std::vector<float> wanted(static_cast<std::size_t>(region_shape(region).numel()));
      std::vector<float> found(wanted.size());
      whole->read(tensor.name, region, TensorView(wanted.data(), DType::kFloat32, region_shape(region)));
      read_region(tensor, full_region(region_shape(region)),
                  TensorView(found.data(), DType::kFloat32, region_shape(region)));
      CHECK(found == wanted);
    }
  }
}

TEST_CASE("a number of parts that does not divide the model is refused with those that do",
          "[app][convert]") {
  const TemporaryFolder folder;
  ModelConfig config = model_preset("tiny").value();
  write_meta_checkpoint(folder / "in", config, numbered_sources(config));
  const auto refuses = [&](const std::vector<std::string>& options, const std::string& words) {
    std::vector<std::string> arguments = {"--in", folder / "in", "--out", folder / "out"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    CHECK_THROWS_AS(run_convert(arguments), ConfigError);
    CHECK_THROWS_WITH(run_convert(arguments), Catch::Contains(words));
    CHECK_FALSE(std::filesystem::exists(folder / "out"));
  };
  for (const char* parts : {"3", "8", "0", "-2", "1000000"}) {
    refuses({"--tp", parts}, "cannot be split into " + std::string(parts) + " files of Meta's layout");
  }
  refuses({"--tp", "8"}, "n_kv_heads 4 cannot be divided; possible here: 1, 2, 4");
  refuses({"--tp", "2", "--to", "hf"}, "--tp 2 is for Meta's layout");
  refuses({}, "nothing to convert to: give --to meta, --to hf, or --tp N");
  config.vocab_size = 257;
  CHECK_THROWS_WITH(check_meta_parts(config, 2),
                    Catch::Contains("vocab_size 257 cannot be divided; possible here: 1"));
}
