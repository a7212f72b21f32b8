// What the loader needs of a tokenizer: text to the ids of one whole document.
#pragma once

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
};

}  // namespace caravan
