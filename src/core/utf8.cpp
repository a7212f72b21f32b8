#include "caravan/core/utf8.h"

#include <fmt/format.h>

#include <cstdint>
#include <cstring>

namespace caravan {
namespace {

/// What stands at one place: `length` bytes that are a character, or the beginning of one cut by the end of
/// the bytes, or ill-formed and to be replaced together.
struct Sequence {
  enum class Kind : std::uint8_t { kCharacter, kCut, kIllFormed };
  Kind kind;
  std::size_t length;
};

/// Number of continuation bytes and the allowed range of the first of them (Unicode 15.0, table 3-7).
struct LeadByte {
  std::size_t following = 0;  // 0: no lead byte
  std::uint8_t low = 0x80;
  std::uint8_t high = 0xBF;
};

LeadByte lead_byte(std::uint8_t lead) {
  if (lead >= 0xC2 && lead <= 0xDF) {
    return {1, 0x80, 0xBF};
  }
  if (lead >= 0xE0 && lead <= 0xEF) {
    const std::uint8_t low = lead == 0xE0 ? 0xA0 : 0x80;
    const std::uint8_t high = lead == 0xED ? 0x9F : 0xBF;
    return {2, low, high};
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    const std::uint8_t low = lead == 0xF0 ? 0x90 : 0x80;
    const std::uint8_t high = lead == 0xF4 ? 0x8F : 0xBF;
    return {3, low, high};
  }
  return {};
}

Sequence sequence_at(std::string_view bytes, std::size_t at) {
  const auto first = static_cast<std::uint8_t>(bytes[at]);
  if (first < 0x80) {
    return {Sequence::Kind::kCharacter, 1};
  }
  const LeadByte lead = lead_byte(first);
  if (lead.following == 0) {
    return {Sequence::Kind::kIllFormed, 1};
  }
  for (std::size_t i = 1; i <= lead.following; ++i) {
    if (at + i == bytes.size()) {
      return {Sequence::Kind::kCut, i};
    }
    const auto byte = static_cast<std::uint8_t>(bytes[at + i]);
    const std::uint8_t low = i == 1 ? lead.low : 0x80;
    const std::uint8_t high = i == 1 ? lead.high : 0xBF;
    if (byte < low || byte > high) {
      return {Sequence::Kind::kIllFormed, i};
    }
  }
  return {Sequence::Kind::kCharacter, lead.following + 1};
}

/// Appends the text of `bytes` to `text`; returns the length of a cut sequence at the end, which is left out.
std::size_t append_text(std::string_view bytes, std::string& text) {
  std::size_t at = 0;
  while (at < bytes.size()) {
    const std::size_t valid = valid_utf8_prefix(bytes.substr(at));
    text.append(bytes.substr(at, valid));
    at += valid;
    if (at == bytes.size()) {
      break;
    }
    const Sequence bad = sequence_at(bytes, at);
    if (bad.kind == Sequence::Kind::kCut) {
      return bad.length;
    }
    text.append(kReplacementCharacter);
    at += bad.length;
  }
  return 0;
}

}  // namespace

std::size_t valid_utf8_prefix(std::string_view bytes) {
  constexpr std::uint64_t kHighBits = 0x8080808080808080ULL;
  std::size_t at = 0;
  while (at < bytes.size()) {
    std::uint64_t word = 0;
    while (at + sizeof(word) <= bytes.size()) {
      std::memcpy(&word, bytes.data() + at, sizeof(word));
      if ((word & kHighBits) != 0) {
        break;
      }
      at += sizeof(word);
    }
    if (at == bytes.size()) {
      break;
    }
    const Sequence next = sequence_at(bytes, at);
    if (next.kind != Sequence::Kind::kCharacter) {
      return at;
    }
    at += next.length;
  }
  return at;
}

std::string replace_invalid_utf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  if (append_text(bytes, text) != 0) {
    text.append(kReplacementCharacter);
  }
  return text;
}

std::string printable(std::string_view bytes, LineEnds line_ends) {
  const std::string text = replace_invalid_utf8(bytes);
  std::string result;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const auto byte = static_cast<unsigned char>(text[at]);
    const bool is_kept = line_ends == LineEnds::kKeep && (byte == '\n' || byte == '\t');
    const auto next = at + 1 < text.size() ? static_cast<unsigned char>(text[at + 1]) : 0U;
    if ((byte < 0x20 && !is_kept) || byte == 0x7F) {
      result += fmt::format("\\x{:02X}", byte);
    } else if (byte == 0xC2 && next < 0xA0) {  // U+0080 to U+009F
      result += fmt::format("\\x{:02X}", next);
      ++at;
    } else {
      result += text[at];
    }
  }
  return result;
}

std::string Utf8Stream::append(std::string_view bytes) {
  waiting_.append(bytes);
  std::string text;
  const std::size_t cut = append_text(waiting_, text);
  waiting_.erase(0, waiting_.size() - cut);
  return text;
}

std::string Utf8Stream::finish() {
  const bool cut = !waiting_.empty();
  waiting_.clear();
  return cut ? std::string(kReplacementCharacter) : std::string();
}

}  // namespace caravan
