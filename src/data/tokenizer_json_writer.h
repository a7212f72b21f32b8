// A trained vocabulary as the text of a tokenizer.json.
#pragma once

#include <string>

#include "caravan/data/bpe_trainer.h"

namespace caravan {

/// With Llama 3's split, ignore_merges (a piece that is a token is that token) and, after the trained tokens,
/// <|begin_of_text|>, <|end_of_text|> and <|finetune_right_pad_id|>. `tokenizers` puts the first in front of
/// every text unless it is told not to add special tokens, as with Llama 3's own file.
std::string tokenizer_json_text(const TrainedBpe& trained);

inline constexpr std::int64_t kTrainedSpecialTokens = 3;

}  // namespace caravan
