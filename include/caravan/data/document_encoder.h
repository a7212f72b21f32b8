// The loader's view of a tokenizer: whole documents with their begin and end tokens.
#pragma once

#include <algorithm>
#include <limits>

#include "caravan/data/text_encoder.h"
#include "caravan/data/tokenizer.h"

namespace caravan {

class DocumentEncoder final : public TextEncoder {
 public:
  /// Throws ConfigError when the tokenizer has no begin or no end token.
  explicit DocumentEncoder(Tokenizer tokenizer)
      : tokenizer_(std::move(tokenizer)), bos_(tokenizer_.bos_id()), eos_(tokenizer_.eos_id()) {}

  std::vector<std::int32_t> encode_document(std::string_view text) const override {
    return encode_beginning(text, std::numeric_limits<std::size_t>::max());
  }
  std::vector<std::int32_t> encode_beginning(std::string_view text, std::size_t enough) const override {
    std::vector<std::int32_t> ids;
    ids.reserve(std::min(text.size() / 3 + 2, enough));
    ids.push_back(bos_);
    tokenizer_.append_ids(text, ids, enough);
    ids.push_back(eos_);  // behind `enough` ids nobody looks
    return ids;
  }

 private:
  Tokenizer tokenizer_;
  std::int32_t bos_;
  std::int32_t eos_;
};

}  // namespace caravan
