#include "pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <cstdint>
#include <limits>

#include "caravan/core/error.h"
#include "caravan/core/excerpt.h"

namespace caravan {
namespace {

// A pattern may come from a hostile file: the work for one match is limited. Llama 3's own needs work linear
// in the piece and the white space after it, and goes without, so that no text of any length is refused.
constexpr std::uint32_t kMatchLimit = 10'000'000;
constexpr std::uint32_t kDepthLimit = 10'000;
constexpr std::uint32_t kHeapLimitKib = 64 * 1024;
constexpr std::size_t kMaxPatternBytes = 4096;

/// PCRE2's `\s` also takes U+180E, which lost its White_Space property in Unicode 6.3; the reference
/// implementations go by the property.
std::string with_exact_white_space(std::string_view pattern) {
  std::string exact;
  for (std::size_t at = 0; at < pattern.size(); ++at) {
    if (pattern[at] == '\\' && at + 1 < pattern.size()) {
      const char kind = pattern[++at];
      if (kind == 's' || kind == 'S') {
        exact += kind == 's' ? "\\p{White_Space}" : "\\P{White_Space}";
      } else {
        exact += '\\';
        exact += kind;
      }
    } else {
      exact += pattern[at];
    }
  }
  return exact;
}

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

PCRE2_SPTR units(std::string_view text) {
  return reinterpret_cast<PCRE2_SPTR>(text.data());
}

}  // namespace

PreTokenizer::PreTokenizer(std::string_view pattern, const std::string& where) {
  if (pattern.empty()) {
    return;
  }
  if (pattern.size() > kMaxPatternBytes) {
    fail<IoError>("{}: the split pattern has {} bytes, at most {} are accepted", where, pattern.size(),
                  kMaxPatternBytes);
  }
  const std::string exact = with_exact_white_space(pattern);
  int error = 0;
  PCRE2_SIZE place = 0;
  code_.reset(pcre2_compile(units(exact), exact.size(), PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C,
                            &error, &place, nullptr),
              pcre2_code_free);
  if (code_ == nullptr) {
    fail<IoError>("{}: the split pattern does not compile: {} (at byte {} of `{}`)", where,
                  pcre2_message(error), place, excerpt(exact, 200));
  }
  // Where the system forbids writable code pages this fails and pcre2_match interprets: slower, same result.
  static_cast<void>(pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE));
  limits_.reset(pcre2_match_context_create(nullptr), pcre2_match_context_free);
  CARAVAN_CHECK(limits_ != nullptr, "out of memory");
  const bool known_linear = pattern == kLlama3Pattern || pattern == kGpt2Pattern;
  pcre2_set_match_limit(limits_.get(),
                        known_linear ? std::numeric_limits<std::uint32_t>::max() : kMatchLimit);
  pcre2_set_depth_limit(limits_.get(), kDepthLimit);
  pcre2_set_heap_limit(limits_.get(), kHeapLimitKib);
}

PieceCursor::PieceCursor(const PreTokenizer& pre_tokenizer, std::string_view text)
    : pre_tokenizer_(&pre_tokenizer),
      text_(text),
      match_data_(pre_tokenizer.code_ == nullptr ? nullptr : pcre2_match_data_create(1, nullptr),
                  pcre2_match_data_free) {
  CARAVAN_CHECK(pre_tokenizer.code_ == nullptr || match_data_ != nullptr, "out of memory");
}

void PieceCursor::find_match() {
  match_begin_ = match_end_ = text_.size();
  if (pre_tokenizer_->code_ == nullptr) {
    match_begin_ = at_;
    return;
  }
  const int found =
      pcre2_match(pre_tokenizer_->code_.get(), units(text_), text_.size(), at_,
                  PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, match_data_.get(), pre_tokenizer_->limits_.get());
  if (found == PCRE2_ERROR_NOMATCH) {
    return;
  }
  if (found < 0) {
    fail<ConfigError>(
        "the tokenizer's split pattern failed at byte {} of a text of {} bytes: {}; use another "
        "tokenizer or shorter texts",
        at_, text_.size(), pcre2_message(found));
  }
  const PCRE2_SIZE* place = pcre2_get_ovector_pointer(match_data_.get());
  if (place[0] < at_ || place[1] <= place[0]) {
    fail<ConfigError>("the tokenizer's split pattern matched backwards at byte {}; use another tokenizer",
                      at_);
  }
  match_begin_ = place[0];
  match_end_ = place[1];
}

bool PieceCursor::next(std::string_view& piece) {
  if (at_ == text_.size()) {
    return false;
  }
  if (match_end_ <= at_) {
    find_match();
  }
  const std::size_t end = match_begin_ > at_ ? match_begin_ : match_end_;
  piece = text_.substr(at_, end - at_);
  at_ = end;
  return true;
}

}  // namespace caravan
