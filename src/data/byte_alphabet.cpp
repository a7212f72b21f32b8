#include "byte_alphabet.h"

#include <algorithm>
#include <numeric>

namespace caravan {
namespace {

constexpr std::size_t kLetters = 256 + 68;  // 68 bytes have no printable Latin-1 character of their own

struct Alphabet {
  std::array<std::uint16_t, 256> letter{};       // byte → code point, all below U+0144
  std::array<std::int16_t, kLetters> byte_of{};  // code point → byte, -1: none
};

Alphabet make_alphabet() {
  Alphabet alphabet;
  alphabet.byte_of.fill(-1);
  std::uint16_t next = 256;
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    alphabet.letter[byte] = printable ? static_cast<std::uint16_t>(byte) : next++;
    alphabet.byte_of[alphabet.letter[byte]] = static_cast<std::int16_t>(byte);
  }
  return alphabet;
}

const Alphabet& alphabet() {
  static const Alphabet instance = make_alphabet();
  return instance;
}

}  // namespace

std::array<std::uint8_t, 256> bytes_in_alphabet_order() {
  std::array<std::uint8_t, 256> bytes{};
  std::iota(bytes.begin(), bytes.end(), std::uint8_t{0});
  std::sort(bytes.begin(), bytes.end(),
            [](std::uint8_t a, std::uint8_t b) { return alphabet().letter[a] < alphabet().letter[b]; });
  return bytes;
}

std::string to_byte_alphabet(std::string_view bytes) {
  std::string text;
  text.reserve(2 * bytes.size());
  for (const char c : bytes) {
    const unsigned letter = alphabet().letter[static_cast<std::uint8_t>(c)];
    if (letter < 0x80) {
      text.push_back(static_cast<char>(letter));
    } else {
      text.push_back(static_cast<char>(0xC0U | (letter >> 6)));
      text.push_back(static_cast<char>(0x80U | (letter & 0x3FU)));
    }
  }
  return text;
}

std::optional<std::string> from_byte_alphabet(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (std::size_t at = 0; at < text.size(); ++at) {
    unsigned letter = static_cast<std::uint8_t>(text[at]);
    if (letter >= 0x80) {
      // Every letter of the alphabet has at most two bytes.
      const unsigned second = at + 1 < text.size() ? static_cast<std::uint8_t>(text[at + 1]) : 0U;
      if ((letter & 0xE0U) != 0xC0U || (second & 0xC0U) != 0x80U) {
        return std::nullopt;
      }
      letter = ((letter & 0x1FU) << 6) | (second & 0x3FU);
      ++at;
    }
    if (letter >= kLetters || alphabet().byte_of[letter] < 0) {
      return std::nullopt;
    }
    bytes.push_back(static_cast<char>(alphabet().byte_of[letter]));
  }
  return bytes;
}

}  // namespace caravan
