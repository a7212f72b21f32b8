#include "caravan/train/run_inputs.h"

#include <catch2/catch.hpp>

#include "caravan/core/error.h"

using namespace caravan;

TEST_CASE("without a tokenizer the padding is that of the model's family", "[train][run_inputs]") {
  const TextTools none;
  CHECK(resolve_pad_id(std::nullopt, none, *model_preset("llama3.2-1b")) == 128004);
  CHECK(resolve_pad_id(std::nullopt, none, *model_preset("llama3.1-8b")) == 128004);
  CHECK(resolve_pad_id(std::nullopt, none, *model_preset("llama3-8b")) == 128001);  // end of text
  CHECK(resolve_pad_id(std::nullopt, none, *model_preset("tiny")) == 0);
  ModelConfig other = *model_preset("llama3.1-8b");
  other.vocab_size = 150000;  // not Llama's: 128004 is some token of it
  CHECK(resolve_pad_id(std::nullopt, none, other) == 0);
}

TEST_CASE("a padding id that is given counts, and must be in the vocabulary", "[train][run_inputs]") {
  const TextTools none;
  const ModelConfig tiny = *model_preset("tiny");
  CHECK(resolve_pad_id(17, none, tiny) == 17);
  CHECK_THROWS_WITH(resolve_pad_id(tiny.vocab_size, none, tiny),
                    Catch::Contains("outside the model's vocabulary"));
}
