#include "caravan/core/excerpt.h"

#include <catch2/catch.hpp>

using namespace caravan;

TEST_CASE("short text stands in a message as it is", "[core][excerpt]") {
  CHECK(excerpt("").empty());
  CHECK(excerpt("caf\xC3\xA9") == "caf\xC3\xA9");
  CHECK(excerpt("12345", 5) == "12345");
}

TEST_CASE("long text is cut between characters", "[core][excerpt]") {
  CHECK(excerpt("123456", 5) == "12345...");
  CHECK(excerpt("1234\xC3\xA9", 5) == "1234...");
  CHECK(excerpt("12\xF0\x9F\x98\x80x", 5) == "12...");
  CHECK(excerpt(std::string(10, '\x80'), 5) == "\xEF\xBF\xBD\xEF\xBF\xBD...");
  CHECK(excerpt(std::string(1 << 20, 'x')).size() == 83);
}

TEST_CASE("a terminal is not given orders by a file", "[core][excerpt]") {
  CHECK(excerpt("a\x1B[31mb\nc\x7F") == "a\\x1B[31mb\\x0Ac\\x7F");
}

TEST_CASE("plain names are short and without control characters", "[core][excerpt]") {
  CHECK(is_plain_name("layers.0.attention.wq.weight"));
  CHECK(is_plain_name("caf\xC3\xA9"));
  CHECK(is_plain_name(std::string(512, 'x')));
  CHECK_FALSE(is_plain_name(""));
  CHECK_FALSE(is_plain_name(std::string(513, 'x')));
  CHECK_FALSE(is_plain_name("a\nb"));
  CHECK_FALSE(is_plain_name("caf\xE9"));
  CHECK_FALSE(is_plain_name(std::string_view("a\0b", 3)));
}
