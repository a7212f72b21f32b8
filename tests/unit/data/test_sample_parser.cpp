#include "caravan/data/sample_parser.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "caravan/core/counter_rng.h"
#include "support/data_files.h"

using namespace caravan;
using caravan::test::message_of;
using Catch::Matchers::Contains;

namespace {

std::string text_of(std::string_view line) {
  Sample sample;
  REQUIRE(parse_json_line(line, std::nullopt, &sample) == SampleKind::kText);
  return sample.text;
}
std::vector<std::int32_t> ids_of(std::string_view line,
                                 std::optional<std::int64_t> vocab_size = std::nullopt) {
  Sample sample;
  REQUIRE(parse_json_line(line, vocab_size, &sample) == SampleKind::kIds);
  return sample.ids;
}
std::string problem(std::string_view line, std::optional<std::int64_t> vocab_size = std::nullopt) {
  Sample sample;
  auto checked = message_of<IoError>([&] { parse_json_line(line, vocab_size, nullptr); });
  const auto read = message_of<IoError>([&] { parse_json_line(line, vocab_size, &sample); });
  REQUIRE(checked == read);
  return checked;
}

}  // namespace

TEST_CASE("text is decoded with its escapes", "[data][json]") {
  CHECK(text_of(R"({"text": "plain"})") == "plain");
  CHECK(text_of(R"( { "url":"x\"y", "text" : "a\"\\\/\b\f\n\r\tz" , "n":[1,-2.5e+3,{"k":null}] } )") ==
        "a\"\\/\b\f\n\r\tz");
  CHECK(text_of(R"({"text": "\u0041\u00e9\u20AC\ud83d\ude00"})") == "A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
  CHECK(text_of(R"({"te\u0078t": "key with an escape"})") == "key with an escape");
  CHECK(text_of(R"({"text": "\u0000"})") == std::string(1, '\0'));
  CHECK(text_of("{\"text\": \"\xE6\x97\xA5\xE6\x9C\xAC, eight plain bytes \xC3\xA9\"}") ==
        "\xE6\x97\xA5\xE6\x9C\xAC, eight plain bytes \xC3\xA9");
  CHECK(text_of(R"({"text": ""})").empty());
}

TEST_CASE("ids are taken as they are", "[data][json]") {
  CHECK(ids_of(R"({"ids": [3, 0,2147483647 , 7]})") == std::vector<std::int32_t>{3, 0, 2147483647, 7});
  CHECK(ids_of(R"({"label": true, "ids":[]})").empty());
  CHECK(ids_of(R"({"ids": [383]})", 384) == std::vector<std::int32_t>{383});
}

TEST_CASE("ids that are not token ids are errors that show them", "[data][json]") {
  CHECK_THAT(problem(R"({"ids": [1, 384]})", 384), Contains("id 384") && Contains("below 384"));
  CHECK_THAT(problem(R"({"ids": [2147483648]})"), Contains("2147483648"));
  CHECK_THAT(problem(R"({"ids": [99999999999999999999999]})"), Contains("99999999999"));
  CHECK_THAT(problem(R"({"ids": [-1]})"), Contains("`-`"));
  for (const char* list :
       {"[1.0]", "[1e2]", "[01]", "[true]", "[\"1\"]", "[1,]", "[1 2]", "[null]", "{}", "5", "[[1]]"}) {
    CAPTURE(list);
    CHECK_THAT(problem(std::string(R"({"ids": )") + list + "}"), Contains("column"));
  }
}

TEST_CASE("objects that are no samples are errors", "[data][json]") {
  CHECK_THAT(problem(R"({"txt": "a"})"), Contains("neither"));
  CHECK_THAT(problem("{}"), Contains("neither"));
  CHECK_THAT(problem(R"({"text": "a", "ids": [1]})"), Contains("both"));
  CHECK_THAT(problem(R"({"text": "a", "text": "b"})"), Contains("twice"));
  CHECK_THAT(problem(R"({"ids": [1], "ids": [2]})"), Contains("twice"));
  CHECK_THAT(problem(R"({"text": 5})"), Contains("must be a string"));
  CHECK_THAT(problem(R"({"text": null})"), Contains("must be a string"));
  CHECK_THAT(problem(R"(["text"])"), Contains("expected a JSON object"));
  CHECK_THAT(problem("plain words"), Contains("expected a JSON object"));
  CHECK_THAT(problem(R"({"text": "a"} {"text": "b"})"), Contains("more after"));
  CHECK_THAT(problem(R"({"text": "a)"), Contains("ends within a string"));
  CHECK_THAT(problem(std::string("{\"text\": \"a\0b\"}", 15)), Contains("0x00"));
  CHECK_THAT(problem(R"({"text": "a", "x": )" + std::string(200, '[') + std::string(200, ']') + "}"),
             Contains("nested"));
}

TEST_CASE("bytes that are not UTF-8 are errors wherever they stand in a string", "[data][json]") {
  for (const char* bytes :
       {"\x80", "\xC0\xAF", "\xC1\xBF", "\xE0\x80\xAF", "\xED\xA0\x80", "\xF0\x80\x80\xAF",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xE2\x82", "\xC3"}) {
    for (const std::size_t before : {0U, 3U, 8U, 13U}) {
      const std::string word = std::string(before, 'a') + bytes;
      CHECK_THAT(problem("{\"text\": \"" + word + "\"}"), Contains("UTF-8"));
      CHECK_THAT(problem("{\"other\": \"" + word + "\", \"text\": \"\"}"), Contains("UTF-8"));
      CHECK_THAT(message_of<IoError>([&] { parse_text_line(word, nullptr); }), Contains("UTF-8"));
    }
  }
  CHECK_THAT(problem(R"({"text": "\ud800"})"), Contains("surrogate"));
  CHECK_THAT(problem(R"({"text": "\ud800\u0041"})"), Contains("surrogate"));
  CHECK_THAT(problem(R"({"text": "\udc00\ud800"})"), Contains("surrogate"));
}

// nlohmann-json is the yardstick: lines made by random edits of good ones are accepted or refused alike. It
// has no opinion on our own rules, so the edits leave the keys alone.
TEST_CASE("random damage is judged as by a general JSON parser", "[data][json]") {
  const std::vector<std::string> seeds = {
      R"({"text": "Hello, world \u00e9\ud83d\ude00 \n\t\"quoted\" and a longer run of letters"})",
      R"({"text":"x","a":[1,2.5,-3e7,true,false,null,{"b":"c"}],"d":{}})",
      "{\"text\": \"\xE6\x97\xA5\xE6\x9C\xAC\xC3\xA9\xF0\x9F\x98\x80\", \"k\": [[], [0], \"\"]}",
  };
  std::string alphabet = "\"\\{}[],:0123456789.eE+-utfn \t/\x80\xC3\xA9\xED\xA0\x01";
  alphabet.push_back('\0');
  const CounterRng rng(20240607, stream_id("damage"));
  std::uint64_t draw = 0;
  int accepted = 0;
  for (int trial = 0; trial < 60000; ++trial) {
    std::string line = seeds[rng.below(draw++, seeds.size())];
    const std::size_t from = 8;  // behind the key
    for (std::uint64_t edit = rng.below(draw++, 3) + 1; edit > 0; --edit) {
      const std::size_t place = from + rng.below(draw++, line.size() - from);
      const char replacement = alphabet[rng.below(draw++, alphabet.size())];
      switch (rng.below(draw++, 3)) {
        case 0:
          line[place] = replacement;
          break;
        case 1:
          line.insert(place, 1, replacement);
          break;
        default:
          line.erase(place, 1);
          break;
      }
    }
    const auto theirs = nlohmann::json::parse(line, nullptr, false);
    const bool is_sample = theirs.is_object() && theirs.contains("text") && theirs["text"].is_string();
    Sample sample;
    const std::string ours = message_of<IoError>([&] { parse_json_line(line, std::nullopt, &sample); });
    CAPTURE(trial, line, ours);
    REQUIRE(ours.empty() == is_sample);
    if (is_sample) {
      ++accepted;
      REQUIRE(sample.text == theirs["text"].get<std::string>());
    }
  }
  CHECK(accepted > 5000);
}

TEST_CASE("plain text lines are taken whole", "[data][text]") {
  Sample sample;
  CHECK(parse_text_line("  {\"text\": 1} \xC3\xA9 ", &sample) == SampleKind::kText);
  CHECK(sample.text == "  {\"text\": 1} \xC3\xA9 ");
  for (const std::size_t before : {0U, 5U, 8U, 11U}) {
    CHECK_THAT(message_of<IoError>(
                   [&] { parse_text_line(std::string(before, 'a') + std::string(9, '\0'), nullptr); }),
               Contains("column " + std::to_string(before + 1)) && Contains("NUL"));
  }
  CHECK(is_blank(""));
  CHECK(is_blank(" \t "));
  CHECK_FALSE(is_blank(" x"));
}
