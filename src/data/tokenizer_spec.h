// What a tokenizer file says, checked, before lookup tables are built from it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/data/tokenizer.h"
#include "pre_tokenizer.h"

namespace caravan {

/// The adjacent tokens `left` and `right` become `merged`.
struct MergeRule {
  std::int32_t left;
  std::int32_t right;
  std::int32_t merged;
};

struct TokenizerSpec {
  std::string path;
  std::vector<std::string> tokens;                    // [vocab_size] bytes of each id; a special token's name
  std::vector<bool> special;                          // [vocab_size]
  std::string pattern = std::string(kLlama3Pattern);  // empty: the text is one piece
  bool whole_piece = true;  // a piece that is a token is that token, whatever the merges give
  /// In order of priority; nullopt: any two adjacent tokens whose bytes together are a token may merge,
  /// lowest id first (tiktoken).
  std::optional<std::vector<MergeRule>> merges;
};

/// `content` is the whole file `path`. Both throw IoError with file, place and value.
TokenizerSpec parse_tokenizer_model(const std::string& path, std::string_view content,
                                    TokenizerVariant variant);
TokenizerSpec parse_tokenizer_json(const std::string& path, std::string_view content);

/// Throws IoError unless all 256 single bytes are ordinary tokens, so that every text can be encoded.
void check_all_bytes_present(const TokenizerSpec& spec);

/// Longest token accepted from a file: the cost of a lookup is bounded by it (Llama 3's longest has 128).
inline constexpr std::size_t kMaxTokenBytes = 4096;

}  // namespace caravan
