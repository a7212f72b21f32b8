// GPT-2's alphabet: every byte as one printable character, how tokenizer.json writes tokens.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace caravan {

/// The 256 bytes in the order of their characters' code points: the ids that a new vocabulary gives them.
std::array<std::uint8_t, 256> bytes_in_alphabet_order();

/// Any bytes as valid UTF-8.
std::string to_byte_alphabet(std::string_view bytes);
/// nullopt when `text` holds a character outside the alphabet.
std::optional<std::string> from_byte_alphabet(std::string_view text);

}  // namespace caravan
