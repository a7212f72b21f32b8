// UTF-8 as it comes from files and from cut token streams: checked, mended, and buffered.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace caravan {

/// U+FFFD, what stands for bytes that are not text.
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

/// Length in bytes of the longest prefix that is valid UTF-8 (no surrogates, no overlong forms, at most
/// U+10FFFF).
std::size_t valid_utf8_prefix(std::string_view bytes);

/// `bytes` with each maximal ill-formed part (Unicode 15.0, section 3.9, "U+FFFD substitution of maximal
/// subparts") replaced by U+FFFD, as Python's `bytes.decode(errors="replace")` does.
std::string replace_invalid_utf8(std::string_view bytes);

/// What to do with the ends of lines and tabs in `printable`.
enum class LineEnds : std::uint8_t { kKeep, kEscape };

/// `bytes` as a terminal may get them: control characters (Unicode's Cc, which begin the sequences that move
/// the cursor or clear the screen) as \x1B, bytes that are no UTF-8 as U+FFFD. For names and texts out of
/// files.
std::string printable(std::string_view bytes, LineEnds line_ends);

/// Bytes in, text out, when the cuts between the pieces fall anywhere: an incomplete sequence at the end
/// waits for the next bytes.
class Utf8Stream {
 public:
  /// The text that is certain after these bytes; what is ill-formed comes as U+FFFD.
  std::string append(std::string_view bytes);
  /// Ends the stream: U+FFFD when an incomplete sequence was waiting, else nothing. Ready for a new stream.
  std::string finish();

 private:
  std::string waiting_;  // at most 3 bytes, the beginning of a valid sequence
};

}  // namespace caravan
