#include "caravan/core/utf8.h"

#include <catch2/catch.hpp>
#include <random>

using namespace caravan;

TEST_CASE("each maximal ill-formed part becomes one U+FFFD", "[core][utf8]") {
  // The expected values are those of Python's bytes.decode(errors="replace").
  CHECK(replace_invalid_utf8("plain \u00E9 \u4F60 \U0001F600") == "plain \u00E9 \u4F60 \U0001F600");
  CHECK(replace_invalid_utf8("\xC0\xAF") == "\uFFFD\uFFFD");                      // overlong
  CHECK(replace_invalid_utf8("\xED\xA0\x80") == "\uFFFD\uFFFD\uFFFD");            // surrogate
  CHECK(replace_invalid_utf8("\xF4\x90\x80\x80") == "\uFFFD\uFFFD\uFFFD\uFFFD");  // beyond U+10FFFF
  CHECK(replace_invalid_utf8("\xE4\xBD") == "\uFFFD");                            // cut
  CHECK(replace_invalid_utf8("\xF0\x9F\x98z\x80") == "\uFFFDz\uFFFD");            // cut, then stray
  CHECK(replace_invalid_utf8("\xE0\x80\x80") == "\uFFFD\uFFFD\uFFFD");            // overlong
  CHECK(valid_utf8_prefix("12345678\xC3") == 8);
  CHECK(valid_utf8_prefix("1234567\xC3\xA9") == 9);
}

TEST_CASE("a stream cut anywhere gives the same text as the whole", "[core][utf8]") {
  std::mt19937 random(3);
  std::uniform_int_distribution<std::size_t> part(0, 3);
  const std::string sample =
      "a\xC3\xA9\xFF\xE4\xBD\xA0\xF0\x9F\x98\x80\xE4\xBD\xF0\x9F\xED\xA0\x80z\xF0\x9F\x98";
  for (int repetition = 0; repetition < 200; ++repetition) {
    Utf8Stream stream;
    std::string text;
    for (std::size_t at = 0; at < sample.size();) {
      const std::size_t count = part(random);
      text += stream.append(std::string_view(sample).substr(at, count));
      at += count;
    }
    text += stream.finish();
    REQUIRE(text == replace_invalid_utf8(sample));
  }
}

TEST_CASE("control characters of files do not reach a terminal", "[core][utf8]") {
  CHECK(printable("\x1B[31mred\x1B[2J\x7F", LineEnds::kKeep) == "\\x1B[31mred\\x1B[2J\\x7F");
  CHECK(printable("one\ttwo\nthree\r", LineEnds::kKeep) == "one\ttwo\nthree\\x0D");
  CHECK(printable("one\ttwo\nthree", LineEnds::kEscape) == "one\\x09two\\x0Athree");
  CHECK(printable("\u009B2J \u00A0\u00E9\u4F60", LineEnds::kKeep) == "\\x9B2J \u00A0\u00E9\u4F60");
  CHECK(printable("a\xFF\xC2", LineEnds::kKeep) == "a\uFFFD\uFFFD");
}
