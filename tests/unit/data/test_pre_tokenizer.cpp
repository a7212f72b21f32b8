#include "src/data/pre_tokenizer.h"

#include <array>
#include <catch2/catch.hpp>
#include <random>
#include <vector>

#include "caravan/core/error.h"

using namespace caravan;
using Pieces = std::vector<std::string>;

namespace {

Pieces split(std::string_view pattern, std::string_view text) {
  const PreTokenizer pre_tokenizer(pattern, "test");
  PieceCursor cursor(pre_tokenizer, text);
  Pieces pieces;
  for (std::string_view piece; cursor.next(piece);) {
    pieces.emplace_back(piece);
  }
  return pieces;
}

}  // namespace

TEST_CASE("Llama 3's split follows the White_Space property exactly", "[data][pre_tokenizer]") {
  // These are white space ...
  for (const std::string space :
       {"\u0085", "\u00A0", "\u1680", "\u2003", "\u2028", "\u202F", "\u3000", "\v"}) {
    INFO(space);
    CHECK(split(kLlama3Pattern, "!" + space + space + "!") == Pieces{"!", space, space, "!"});
  }
  // ... and these are not, though some regular expression engines think so.
  for (const std::string other : {"\u180E", "\u200B", "\x1C", "\x1F"}) {
    INFO(other);
    CHECK(split(kLlama3Pattern, "!" + other + other + "!") == Pieces{"!" + other + other + "!"});
  }
}

TEST_CASE("the pieces of any text put together are the text", "[data][pre_tokenizer]") {
  const std::array<std::string, 20> alphabet = {
      "a",      "S", "'",      "\u017F", " ",      "  ",     "\n", "\r",         "\t",     "7",
      "\u0661", "!", "\u00E9", "\u4F60", "\u0301", "\u00A0", "ll", "\U0001F600", "\u180E", "\u3000"};
  const PreTokenizer pre_tokenizer(kLlama3Pattern, "test");
  std::mt19937 random(11);
  std::uniform_int_distribution<std::size_t> pick(0, alphabet.size() - 1);
  for (int repetition = 0; repetition < 2000; ++repetition) {
    std::string text;
    for (int i = 0; i < 30; ++i) {
      text += alphabet[pick(random)];
    }
    std::string joined;
    PieceCursor cursor(pre_tokenizer, text);
    for (std::string_view piece; cursor.next(piece);) {
      REQUIRE_FALSE(piece.empty());
      joined += piece;
    }
    REQUIRE(joined == text);
  }
}

TEST_CASE("what stands between matches is a piece", "[data][pre_tokenizer]") {
  CHECK(split("[0-9]+", "ab12cd3") == Pieces{"ab", "12", "cd", "3"});
  CHECK(split("", "the whole text") == Pieces{"the whole text"});
  CHECK(split("x*", "axxb") == Pieces{"a", "xx", "b"});
  CHECK(split(kLlama3Pattern, "").empty());
}

TEST_CASE("a pattern that does not compile or backtracks without end is refused", "[data][pre_tokenizer]") {
  CHECK_THROWS_AS(split("(unclosed", "text"), IoError);
  CHECK_THROWS_AS(split(std::string(5000, 'a'), "text"), IoError);
  CHECK_THROWS_AS(split("(a+)+$", std::string(5000, 'a') + "b"), ConfigError);
  CHECK_THROWS_AS(split("(a|aa)+\\z", std::string(5000, 'a') + "b"), ConfigError);
}
