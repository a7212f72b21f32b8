// What the loader needs of a tokenizer: text to the ids of one whole document.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace caravan {

class TextEncoder {
 public:
  TextEncoder() = default;
  TextEncoder(const TextEncoder&) = delete;
  TextEncoder& operator=(const TextEncoder&) = delete;
  virtual ~TextEncoder() = default;

  /// Ids of `text` (valid UTF-8) with the begin and end tokens. Called from several threads at once.
  virtual std::vector<std::int32_t> encode_document(std::string_view text) const = 0;

  /// encode_document(), but what comes behind the first `enough` ids may be missing: a long document costs no
  /// more than what is used of it.
  virtual std::vector<std::int32_t> encode_beginning(std::string_view text, std::size_t enough) const {
    static_cast<void>(enough);
    return encode_document(text);
  }
};

}  // namespace caravan
