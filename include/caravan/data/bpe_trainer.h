// Makes a byte-level BPE tokenizer from text (Sennrich, Haddow, Birch 2016, algorithm 1, on bytes), with
// Llama 3's split into pieces, and writes it as a tokenizer.json that Hugging Face's `tokenizers` reads.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace caravan {

struct BpeTrainerOptions {
  std::int64_t vocab_size = 4096;  // the 256 bytes, the merged tokens and the 3 special tokens
  std::int64_t min_frequency = 2;  // a pair must occur this often to become a token
};

/// The tokens in the order of their ids, and the merges in the order of their priority.
struct TrainedBpe {
  std::vector<std::string> tokens;  // [0, 256): the single bytes in the order of GPT-2's alphabet
  std::vector<std::pair<std::int32_t, std::int32_t>> merges;  // left and right id
};

/// A piece of text (any bytes) → how often it occurs.
using PieceCounts = std::unordered_map<std::string, std::int64_t>;

/// Merges the most frequent adjacent pair, the one with the smaller ids of equals, until there are
/// `max_tokens` tokens or no pair occurs `min_frequency` times. Depends on the counts only, not on their
/// order. Tokens have at most 256 bytes.
TrainedBpe train_bpe(const PieceCounts& pieces, std::int64_t max_tokens, std::int64_t min_frequency);

struct TokenizerTrainingReport {
  std::int64_t samples = 0;
  std::int64_t text_bytes = 0;
  std::int64_t distinct_pieces = 0;
  std::int64_t vocab_size = 0;  // below what was asked for when the text has too few repeated pairs
};

/// Trains on `corpora` (data files as the Dataset reads them: JSONL with `text`, plain text, gzip, globs) and
/// writes `path` atomically. The special tokens <|begin_of_text|>, <|end_of_text|> and
/// <|finetune_right_pad_id|> are the last three ids. The same files give the same bytes. Memory grows with
/// the number of different pieces; for corpora beyond some gigabytes train on a part. Throws ConfigError for
/// an impossible size and IoError for files that cannot be read, carry ids instead of text, or cannot be
/// written.
TokenizerTrainingReport train_tokenizer(const std::vector<std::string>& corpora,
                                        const BpeTrainerOptions& options, const std::string& path);

}  // namespace caravan
