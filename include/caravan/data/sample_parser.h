// One line of a data file to one sample. The same code checks a line in the index pass and reads it for
// training, so that what was accepted up front cannot fail later.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace caravan {

enum class SampleKind : std::uint8_t { kText, kIds };

/// A document as the file has it: text to be encoded, or ids taken as they are.
struct Sample {
  SampleKind kind = SampleKind::kText;
  std::string text;               // kText; valid UTF-8
  std::vector<std::int32_t> ids;  // kIds; 0 <= id < vocab_size where known
};

/// A line with nothing but spaces and tabs: skipped in every format.
bool is_blank(std::string_view line);

/// A JSON object (RFC 8259, strict) with either `text`, a string, or `ids`, a list of integers in [0,
/// vocab_size); other keys are checked and ignored. With `sample` null the line is only checked, without
/// copying. Throws IoError saying what is wrong at which column; the caller adds file and line.
SampleKind parse_json_line(std::string_view line, std::optional<std::int64_t> vocab_size, Sample* sample);

/// A line of plain text: valid UTF-8 without NUL bytes. Throws and copies as parse_json_line.
SampleKind parse_text_line(std::string_view line, Sample* sample);

}  // namespace caravan
