// What a Tokenizer shares between its copies.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "byte_pair_encoder.h"
#include "pre_tokenizer.h"
#include "tokenizer_spec.h"

namespace caravan::detail {

struct TokenizerTables {
  explicit TokenizerTables(const TokenizerSpec& spec);

  std::string path;
  PreTokenizer pre_tokenizer;
  BytePairEncoder encoder;
  std::vector<bool> special;  // [vocab_size]
  std::optional<std::int32_t> bos;
  std::optional<std::int32_t> eos;
  std::optional<std::int32_t> pad;
  std::vector<std::int32_t> stops;
};

}  // namespace caravan::detail
