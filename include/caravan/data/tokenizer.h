// Bytes ↔ token ids exactly as Llama 3's reference: byte-level BPE after a split by regular expression. Reads
// Meta's tokenizer.model and Hugging Face's tokenizer.json; bpe_trainer.h makes new ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/core/utf8.h"

namespace caravan {

/// The names of the special tokens that tokenizer.model leaves open. The ids of begin, end, header and end of
/// turn are the same in both; 3.1 (also 3.2 and 3.3) has a padding token at 128004, 3.0 has none.
enum class TokenizerVariant : std::uint8_t {
  kAuto,  // by `use_scaled_rope` of a params.json beside tokenizer.model; without one kLlama31
  kLlama30,
  kLlama31,
};

namespace detail {
struct TokenizerTables;
}

/// Immutable and cheap to copy; every member may be called from several threads at once.
class Tokenizer {
 public:
  /// Reads `path`: tokenizer.model (tiktoken text), tokenizer.json (byte-level BPE), recognised by content,
  /// or a folder that holds one of them (tokenizer.json is preferred, since it names its special tokens).
  /// `variant` matters for tokenizer.model only. Throws IoError for what is missing, malformed or of another
  /// kind (SentencePiece, WordPiece, Unigram, a normalizer), with file, place and value.
  static Tokenizer load(const std::string& path, TokenizerVariant variant = TokenizerVariant::kAuto);

  /// Ids of ordinary text: no special token is added, and text that spells one ("<|eot_id|>") is ordinary.
  /// Bytes that are not UTF-8 count as U+FFFD (see utf8.h). Linear in the length but for a factor log n in
  /// pieces longer than 100 bytes. Throws ConfigError when the pattern of a foreign tokenizer.json exceeds
  /// the work allowed to it (Llama 3's never does).
  std::vector<std::int32_t> encode(std::string_view text) const;
  /// The same, behind what `ids` already holds; stops after the piece of text with which `ids` has `enough`.
  void append_ids(std::string_view text, std::vector<std::int32_t>& ids,
                  std::size_t enough = std::numeric_limits<std::size_t>::max()) const;

  /// The text of `ids`, special tokens by their names, ill-formed UTF-8 as U+FFFD. Throws ConfigError for an
  /// id outside [0, vocab_size).
  std::string decode(std::span<const std::int32_t> ids) const;

  /// The bytes of one token, for a special one its name; valid while any copy of this tokenizer lives.
  /// Throws as decode.
  std::string_view token_bytes(std::int32_t id) const;

  /// Number of ids, the special ones included; ids are dense.
  std::int64_t vocab_size() const;
  bool is_special(std::int32_t id) const;
  /// The id of a special token by its name, e.g. "<|start_header_id|>".
  std::optional<std::int32_t> special_id(std::string_view name) const;

  /// Begin and end of text. Throw ConfigError when the file names none (a tokenizer.json without them).
  std::int32_t bos_id() const;
  std::int32_t eos_id() const;
  /// Where generation ends: end of text and, where they exist, end of turn and end of message.
  const std::vector<std::int32_t>& stop_ids() const;
  /// `<|finetune_right_pad_id|>` (128004 of Llama 3.1 and later) where there is one, else end of text.
  std::int32_t default_pad_id() const;

  /// The file that was read (not the folder): what a checkpoint copies unchanged.
  const std::string& path() const;

 private:
  explicit Tokenizer(std::shared_ptr<const detail::TokenizerTables> tables) : tables_(std::move(tables)) {}
  std::shared_ptr<const detail::TokenizerTables> tables_;
};

/// Ids one by one to text, as they are generated: a character whose bytes are spread over several tokens
/// appears when it is complete.
class StreamingDecoder {
 public:
  explicit StreamingDecoder(Tokenizer tokenizer) : tokenizer_(std::move(tokenizer)) {}
  /// The text that became certain with `id`. Throws as Tokenizer::decode.
  std::string append(std::int32_t id) { return stream_.append(tokenizer_.token_bytes(id)); }
  /// U+FFFD when the stream ended inside a character. Ready for a new stream.
  std::string finish() { return stream_.finish(); }

 private:
  Tokenizer tokenizer_;
  Utf8Stream stream_;
};

}  // namespace caravan
