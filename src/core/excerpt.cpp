#include "caravan/core/excerpt.h"

#include <algorithm>

#include "caravan/core/utf8.h"

namespace caravan {
namespace {

constexpr std::size_t kMaxNameBytes = 512;

bool is_continuation(char c) {
  return (static_cast<unsigned char>(c) & 0xC0U) == 0x80U;
}

}  // namespace

std::string excerpt(std::string_view text, std::size_t limit) {
  std::size_t length = std::min(text.size(), limit);
  // At most three bytes back: what is no UTF-8 has no borders.
  for (int back = 0; back < 3 && length > 0 && length < text.size() && is_continuation(text[length]);
       ++back) {
    --length;
  }
  const std::string shown = printable(text.substr(0, length), LineEnds::kEscape);
  return length < text.size() ? shown + "..." : shown;
}

bool is_plain_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes && printable(name, LineEnds::kEscape) == name;
}

}  // namespace caravan
