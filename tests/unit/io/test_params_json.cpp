#include "caravan/io/params_json.h"

#include <catch2/catch.hpp>

#include "caravan/core/error.h"
#include "support/data_files.h"
#include "support/temporary_folder.h"

using namespace caravan;
using namespace caravan::test;

namespace {

const std::string kSmall = R"("dim":64,"n_layers":2,"n_heads":8,"vocab_size":256)";

ModelConfig params(const std::string& text, std::optional<double> factor = std::nullopt) {
  const TemporaryFolder folder;
  write_text(folder / "params.json", text);
  return read_params_json(folder / "params.json", factor);
}

std::string params_refusal(const std::string& more) {
  return message_of<IoError>([&] { params("{" + kSmall + more + "}"); });
}

const std::string kHfSmall =
    R"("hidden_size":64,"intermediate_size":160,"num_hidden_layers":2,"num_attention_heads":8,"vocab_size":256)";

ModelConfig hf(const std::string& more, std::optional<double> factor = std::nullopt) {
  const TemporaryFolder folder;
  write_text(folder / "config.json", "{" + kHfSmall + more + "}");
  return read_hf_config(folder / "config.json", factor);
}

std::string hf_refusal(const std::string& more) {
  return message_of<IoError>([&] { hf(more); });
}

}  // namespace

TEST_CASE("Meta's rule gives the widths of the released models", "[io][params_json]") {
  CHECK(meta_intermediate_size(2048, 1.5, 256) == 8192);
  CHECK(meta_intermediate_size(3072, 1.0, 256) == 8192);
  CHECK(meta_intermediate_size(4096, 1.3, 1024) == 14336);
  CHECK(meta_intermediate_size(8192, 1.3, 4096) == 28672);
  CHECK(meta_intermediate_size(64, 1.3, 32) == 224);
  CHECK(meta_intermediate_size(4096, std::nullopt, 256) == 11008);
  CHECK_THROWS_AS(meta_intermediate_size(64, 0.0, 32), IoError);
  CHECK_THROWS_AS(meta_intermediate_size(64, -1.0, 32), IoError);
  CHECK_THROWS_AS(meta_intermediate_size(64, 1e300, 32), IoError);
}

TEST_CASE("the rule found for a width gives that width", "[io][params_json]") {
  for (const std::int64_t hidden : {2, 64, 96, 100, 192, 2048, 3072, 4096, 8192, 16384}) {
    for (const std::int64_t width :
         {1, 2, 7, 64, 160, 224, 511, 512, 1000, 8191, 8192, 14336, 28672, 53248, 999'983}) {
      const FfnRule rule = find_ffn_rule(hidden, width);
      CHECK(meta_intermediate_size(hidden, rule.multiplier, rule.multiple_of) == width);
    }
  }
  CHECK(find_ffn_rule(4096, 14336).multiplier == 1.3);
  CHECK_FALSE(find_ffn_rule(3072, 8192).multiplier.has_value());
}

TEST_CASE("params.json of Llama 3.2 1B gives the preset, the factor 32 included", "[io][params_json]") {
  const std::string text =
      R"({"dim":2048,"n_layers":16,"n_heads":32,"n_kv_heads":8,"vocab_size":128256,"ffn_dim_multiplier":1.5,
          "multiple_of":256,"norm_eps":1e-05,"rope_theta":500000.0,"use_scaled_rope":true})";
  ModelConfig expected = model_preset("llama3.2-1b").value();
  expected.tie_embeddings = false;  // the tensors tell
  CHECK(params(text) == expected);
  CHECK(params(R"({"model":)" + text + "}") == expected);
}

TEST_CASE("the factor comes from the caller, else the file, else the width", "[io][params_json]") {
  const auto text = [](std::int64_t dim, const std::string& more) {
    return fmt::format(R"({{"dim":{},"n_layers":2,"n_heads":8,"vocab_size":256,"use_scaled_rope":true{}}})",
                       dim, more);
  };
  CHECK(params(text(2048, "")).rope_scaling->factor == 32);
  CHECK(params(text(3072, "")).rope_scaling->factor == 32);
  CHECK(params(text(4096, "")).rope_scaling->factor == 8);
  CHECK(params(text(8192, "")).rope_scaling->factor == 8);
  CHECK(params(text(2048, R"(,"rope_scaling_factor":16)")).rope_scaling->factor == 16);
  CHECK(params(text(2048, R"(,"rope_scaling_factor":16)"), 4.0).rope_scaling->factor == 4);
  CHECK_FALSE(params("{" + kSmall + "}").rope_scaling.has_value());
  CHECK_THROWS_AS(params("{" + kSmall + "}", 4.0), ConfigError);
}

TEST_CASE("absent keys of params.json have Meta's defaults", "[io][params_json]") {
  const ModelConfig config = params(R"({"dim":64,"n_layers":2,"n_heads":8,"max_seq_len":99})");
  CHECK(config.n_kv_heads == 8);
  CHECK(config.head_dim == 8);
  CHECK(config.vocab_size == 0);
  CHECK(config.intermediate_size == 256);
  CHECK(config.rms_norm_eps == 1e-5);
  CHECK(config.rope_theta == 500000.0);
  CHECK(config.max_position == 8192);
  CHECK(params(R"({"dim":64,"n_layers":2,"n_heads":8,"vocab_size":-1})").vocab_size == 0);
}

TEST_CASE("params.json of variants, wrong types and impossible values are refused", "[io][params_json]") {
  CHECK(params_refusal("").empty());
  CHECK_THAT(params_refusal(R"(,"quantization_args":{})"), Catch::Contains("quantised"));
  CHECK_THAT(params_refusal(R"(,"lora_args":{})"), Catch::Contains("lora_args"));
  CHECK_THAT(params_refusal(R"(,"vision_chunk_size":448)"), Catch::Contains("vision"));
  CHECK_THAT(params_refusal(R"(,"n_kv_heads":"8")"),
             Catch::Contains("'n_kv_heads' is \"8\", not an integer"));
  CHECK_THAT(params_refusal(R"(,"n_kv_heads":8.0)"), Catch::Contains("not an integer"));
  CHECK_THAT(params_refusal(R"(,"n_kv_heads":0)"), Catch::Contains("from 1 to"));
  CHECK_THAT(params_refusal(R"(,"n_kv_heads":3)"), Catch::Contains("n_kv_heads 3"));
  CHECK_THAT(params_refusal(R"(,"norm_eps":0)"), Catch::Contains("must be positive"));
  CHECK_THAT(params_refusal(R"(,"use_scaled_rope":1)"), Catch::Contains("not true or false"));
  CHECK_THAT(params_refusal(R"(,"ffn_dim_multiplier":-2)"), Catch::Contains("no possible width"));
  CHECK_THAT(params_refusal(R"(,"dim":64)"), Catch::Contains("occurs twice"));
  CHECK_THAT(params_refusal(R"(,"multiple_of":2147483647)"),
             Catch::Contains("'multiple_of' is 2147483647; it must be from 1 to 16777216"));
  CHECK_THAT(params_refusal(R"(,"ffn_dim_multiplier":1e6)"), Catch::Contains("an MLP of width"));
  CHECK_THROWS_WITH(params(R"({"dim":64,"n_layers":9200000000000000000,"n_heads":8})"),
                    Catch::Contains("'n_layers' is 9200000000000000000; it must be from 1 to 16384"));
  CHECK_THROWS_WITH(params(R"({"dim":64})"), Catch::Contains("'n_layers' is missing"));
  CHECK_THROWS_WITH(params(R"({"dim":65,"n_layers":2,"n_heads":8})"),
                    Catch::Contains("not a multiple of n_heads"));
}

TEST_CASE("a long value or key of a model's shape is cut in the message", "[io][params_json]") {
  const std::string long_text(100'000, 'x');
  for (const std::string& text :
       {params_refusal(",\"n_kv_heads\":\"" + long_text + "\""),
        params_refusal(",\"vision_" + long_text + "\":1"), params_refusal(",\"a\":\"" + long_text + "\xFF\""),
        hf_refusal(",\"model_type\":\"" + long_text + "\""),
        hf_refusal(",\"" + long_text + "\":1,\"" + long_text + "\":2")}) {
    CHECK(!text.empty());
    CHECK(text.size() < 600);
  }
}

TEST_CASE("every preset survives params.json and config.json", "[io][params_json]") {
  const TemporaryFolder folder;
  for (const std::string& name : model_preset_names()) {
    ModelConfig config = model_preset(name).value();
    write_text(folder / "config.json", to_hf_config(config, DType::kBFloat16));
    CHECK(read_hf_config(folder / "config.json", std::nullopt) == config);
    CHECK(read_model_config(folder / "config.json", std::nullopt) == config);
    config.tie_embeddings = false;
    write_text(folder / "params.json", to_params_json(config));
    CHECK(read_params_json(folder / "params.json", std::nullopt) == config);
    CHECK(read_model_config(folder / "params.json", std::nullopt) == config);
  }
}

TEST_CASE("shapes that Meta's keys cannot say survive params.json too", "[io][params_json]") {
  const TemporaryFolder folder;
  ModelConfig config = model_preset("tiny").value();
  config.head_dim = 16;
  config.intermediate_size = 999;
  config.max_position = 777;
  config.rope_scaling = RopeScaling{3.0, 1.5, 2.5, 1234};
  write_text(folder / "params.json", to_params_json(config));
  CHECK(read_params_json(folder / "params.json", std::nullopt) == config);
}

TEST_CASE("config.json is read in the spellings of transformers 4 and 5", "[io][params_json]") {
  const std::string llama3 = R"("factor":32.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
                                "original_max_position_embeddings":8192)";
  const auto four =
      hf(R"(,"rope_theta":500000.0,"torch_dtype":"float32","rope_scaling":{"rope_type":"llama3",)" + llama3 +
         "}");
  const auto old = hf(R"(,"rope_theta":500000.0,"rope_scaling":{"type":"llama3",)" + llama3 + "}");
  const auto five = hf(
      R"(,"dtype":"float32","rope_parameters":{"rope_type":"llama3","rope_theta":500000.0,)" + llama3 + "}");
  CHECK(four == old);
  CHECK(four == five);
  CHECK(four.rope_theta == 500000.0);
  CHECK(four.rope_scaling == RopeScaling{32.0, 1.0, 4.0, 8192});
  CHECK(hf(R"(,"rope_scaling":{"rope_type":"llama3",)" + llama3 + "}", 8.0).rope_scaling->factor == 8.0);
  CHECK_FALSE(hf(R"(,"rope_scaling":null)").rope_scaling.has_value());
  CHECK_FALSE(hf(R"(,"rope_parameters":{"rope_type":"default","rope_theta":1.5})").rope_scaling.has_value());
  CHECK(hf(R"(,"rope_parameters":{"rope_type":"default","rope_theta":1.5})").rope_theta == 1.5);
  CHECK(hf("").head_dim == 8);
  CHECK(hf("").n_kv_heads == 8);
  CHECK(hf(R"(,"head_dim":32)").head_dim == 32);
}

TEST_CASE("config.json of other models and variants is refused", "[io][params_json]") {
  CHECK(hf_refusal("").empty());
  CHECK_THAT(hf_refusal(R"(,"model_type":"mistral")"), Catch::Contains("mistral"));
  CHECK_THAT(hf_refusal(R"(,"hidden_act":"gelu")"), Catch::Contains("gelu"));
  CHECK_THAT(hf_refusal(R"(,"attention_bias":true)"), Catch::Contains("attention_bias"));
  CHECK_THAT(hf_refusal(R"(,"mlp_bias":true)"), Catch::Contains("mlp_bias"));
  CHECK_THAT(hf_refusal(R"(,"quantization_config":{"bits":4})"), Catch::Contains("quantization_config"));
  for (const char* type : {"linear", "dynamic", "yarn", "longrope"}) {
    CHECK_THAT(hf_refusal(fmt::format(R"(,"rope_scaling":{{"rope_type":"{}","factor":2.0}})", type)),
               Catch::Contains(type));
  }
  CHECK_THAT(hf_refusal(R"(,"rope_scaling":{"rope_type":"llama3"})"), Catch::Contains("no 'factor'"));
  CHECK_THAT(hf_refusal(R"(,"rope_scaling":3)"), Catch::Contains("not an object"));
  CHECK_THAT(hf_refusal(R"(,"num_key_value_heads":5)"), Catch::Contains("n_kv_heads 5"));
}
