// The split of text into pieces by the tokenizer's regular expression (PCRE2, JIT where the machine allows
// it).
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

struct pcre2_real_code_8;
struct pcre2_real_match_context_8;
struct pcre2_real_match_data_8;

namespace caravan {

/// Llama 3's split into pieces (also of 3.1, 3.2, 3.3).
inline constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// GPT-2's split, what tokenizer.json's ByteLevel does by itself.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// A compiled pattern; immutable, shared by threads, each with its own PieceCursor.
class PreTokenizer {
 public:
  /// `pattern` as tokenizer.json and tiktoken write it, an empty one keeps the text whole; `where` stands in
  /// front of errors. Throws IoError when it does not compile or is longer than 4096 bytes.
  PreTokenizer(std::string_view pattern, const std::string& where);

 private:
  friend class PieceCursor;
  std::shared_ptr<pcre2_real_code_8> code_;  // null for the empty pattern
  std::shared_ptr<pcre2_real_match_context_8> limits_;
};

/// Walks over the pieces of one text. Every byte is in exactly one piece: what stands between two matches is
/// a piece as well.
class PieceCursor {
 public:
  /// `text` must be valid UTF-8; it and `pre_tokenizer` must outlive the cursor.
  PieceCursor(const PreTokenizer& pre_tokenizer, std::string_view text);
  /// False at the end. Throws ConfigError when the match needs more work than is allowed.
  bool next(std::string_view& piece);

 private:
  void find_match();

  const PreTokenizer* pre_tokenizer_;
  std::string_view text_;
  std::size_t at_ = 0;           // end of the last piece
  std::size_t match_begin_ = 0;  // of the match found ahead, valid when match_end_ > at_
  std::size_t match_end_ = 0;
  std::unique_ptr<pcre2_real_match_data_8, void (*)(pcre2_real_match_data_8*)> match_data_;
};

}  // namespace caravan
