#include "caravan/io/params_json.h"
#include "fuzz/fuzz_entries.h"

namespace caravan::fuzz {

/// params.json and config.json, told apart by their keys.
void model_json(Bytes input) {
  ModelConfig config;
  if (!accepted([&] { config = read_model_config(file_of(input), std::nullopt); })) {
    return;
  }
  const std::string written = to_hf_config(config, DType::kFloat32);
  if (config.vocab_size > 0) {  // params.json may leave it to the tokenizer
    ModelConfig again = read_hf_config(file_of(std::as_bytes(std::span(written))), std::nullopt);
    require(again == config, "a model's shape survives writing and reading");
  }
}

}  // namespace caravan::fuzz
