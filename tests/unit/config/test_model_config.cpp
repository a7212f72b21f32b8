#include "caravan/config/model_config.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <limits>

using namespace caravan;

namespace {

ModelConfig preset(const std::string& name) {
  const auto config = model_preset(name);
  REQUIRE(config.has_value());
  return *config;
}

}  // namespace

TEST_CASE("presets have the published parameter counts, tied and untied", "[config][model]") {
  const auto counts = [](const std::string& name) {
    ModelConfig config = preset(name);
    config.tie_embeddings = true;
    const std::int64_t tied = parameter_count(config);
    config.tie_embeddings = false;
    return std::pair(parameter_count(config), tied);
  };
  CHECK(counts("llama3.2-1b") == std::pair<std::int64_t, std::int64_t>(1498482688, 1235814400));
  CHECK(counts("llama3.2-3b") == std::pair<std::int64_t, std::int64_t>(3606752256, 3212749824));
  CHECK(counts("llama3.1-8b").first == 8030261248);
  CHECK(counts("llama3-8b").first == 8030261248);
  CHECK(counts("llama3.1-70b").first == 70553706496);
}

TEST_CASE("the per-layer parameter counts of the presets are the published ones", "[config][model]") {
  const auto per_layer = [](const std::string& name) {
    ModelConfig config = preset(name);
    const std::int64_t all = parameter_count(config);
    config.n_layers -= 1;
    return all - parameter_count(config);
  };
  CHECK(per_layer("llama3.2-1b") == 60821504);
  CHECK(per_layer("llama3.2-3b") == 100669440);
  CHECK(per_layer("llama3.1-8b") == 218112000);
  CHECK(per_layer("llama3.1-70b") == 855654400);
}

TEST_CASE("presets carry the right tying, frequency scaling and position limit", "[config][model]") {
  CHECK(preset("llama3.2-1b").tie_embeddings);
  CHECK(preset("llama3.2-3b").tie_embeddings);
  CHECK_FALSE(preset("llama3.1-8b").tie_embeddings);
  CHECK_FALSE(preset("llama3.1-70b").tie_embeddings);
  CHECK(preset("llama3.2-1b").rope_scaling->factor == 32.0);
  CHECK(preset("llama3.2-3b").rope_scaling->factor == 32.0);
  CHECK(preset("llama3.1-8b").rope_scaling->factor == 8.0);
  CHECK(preset("llama3.1-70b").rope_scaling->factor == 8.0);
  CHECK_FALSE(preset("llama3-8b").rope_scaling.has_value());
  CHECK(preset("llama3-8b").max_position == 8192);
  CHECK(preset("llama3.1-8b").max_position == 131072);
}

TEST_CASE("every preset can be built and an unknown name is none", "[config][model]") {
  const auto names = model_preset_names();
  CHECK(names.size() == 8);
  for (const std::string& name : names) {
    INFO(name);
    CHECK(find_problems(preset(name)).empty());
    CHECK(preset(name).n_kv_heads % 4 == 0);
  }
  CHECK_FALSE(model_preset("llama3.2-2b").has_value());
}

TEST_CASE("each impossible shape is named with its value", "[config][model]") {
  struct Case {
    std::function<void(ModelConfig&)> spoil;
    std::string words;
  };
  const std::vector<Case> cases = {
      {[](auto& c) { c.vocab_size = 0; }, "vocab_size is 0"},
      {[](auto& c) { c.hidden_size = -4; }, "hidden_size is -4"},
      {[](auto& c) { c.intermediate_size = 0; }, "intermediate_size is 0"},
      {[](auto& c) { c.n_layers = std::numeric_limits<std::int64_t>::max(); },
       "n_layers is 9223372036854775807"},
      {[](auto& c) { c.n_heads = 0; }, "n_heads is 0"},
      {[](auto& c) { c.n_kv_heads = 3; }, "n_heads is 8 and n_kv_heads 3"},
      {[](auto& c) { c.head_dim = 7; }, "head_dim is 7; it must be even"},
      {[](auto& c) { c.n_heads = 1 << 20; }, "n_heads · head_dim is 8388608"},
      {[](auto& c) { c.rms_norm_eps = 0.0; }, "rms_norm_eps is 0"},
      {[](auto& c) { c.rope_theta = std::nan(""); }, "rope_theta is nan"},
      {[](auto& c) { c.rope_scaling->factor = 0.5; }, "rope_scaling.factor is 0.5"},
      {[](auto& c) { c.rope_scaling->high_freq_factor = 1.0; }, "rope_scaling.high_freq_factor is 1"},
      {[](auto& c) { c.rope_scaling->original_max_position = 0; }, "rope_scaling.original_max_position is 0"},
      {[](auto& c) { c.max_position = 0; }, "max_position is 0"},
  };
  for (const Case& one : cases) {
    ModelConfig config = preset("tiny");
    one.spoil(config);
    const auto problems = find_problems(config);
    INFO(one.words);
    REQUIRE(problems.size() == 1);
    CHECK(problems.front().find(one.words) != std::string::npos);
  }
}

TEST_CASE("several impossible sizes are all reported", "[config][model]") {
  CHECK(find_problems(ModelConfig{}).size() == 7);
}
