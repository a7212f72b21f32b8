// Tokenizer on Llama 3's own vocabulary where it is present, and on small vocabularies that the tests write.
#include "caravan/data/tokenizer.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "caravan/core/error.h"
#include "caravan/data/document_encoder.h"
#include "support/tokenizer_files.h"

using namespace caravan;
using caravan::test::byte_tokens_and;
using caravan::test::shared_file_or_skip;
using caravan::test::TemporaryFolder;
using caravan::test::tokenizer_model_text;
using Ids = std::vector<std::int32_t>;

namespace {

/// What the merges of a piece must give, by the definition and without any cleverness.
Ids merged_by_definition(const std::vector<std::string>& tokens, std::string_view piece) {
  const auto rank = [&](std::string_view bytes) {
    const auto found = std::find(tokens.begin(), tokens.end(), bytes);
    return found == tokens.end() ? std::numeric_limits<std::ptrdiff_t>::max() : found - tokens.begin();
  };
  std::vector<std::string> parts;
  for (const char c : piece) {
    parts.emplace_back(1, c);
  }
  while (true) {
    std::ptrdiff_t best = std::numeric_limits<std::ptrdiff_t>::max();
    std::size_t at = 0;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      if (const auto candidate = rank(parts[i] + parts[i + 1]); candidate < best) {
        best = candidate;
        at = i;
      }
    }
    if (best == std::numeric_limits<std::ptrdiff_t>::max()) {
      break;
    }
    parts[at] += parts[at + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
  Ids ids;
  for (const std::string& part : parts) {
    ids.push_back(static_cast<std::int32_t>(rank(part)));
  }
  return ids;
}

struct Golden {
  std::string text;
  Ids ids;
};

const std::vector<Golden> kGolden = {
    {"This is a test sentence.", {2028, 374, 264, 1296, 11914, 13}},
    {"hello   world  ", {15339, 256, 1917, 256}},
    {"   hello", {256, 24748}},
    {"Hello, World!", {9906, 11, 4435, 0}},
    {"I'll don't WE'RE they'd", {40, 3358, 1541, 956, 20255, 95253, 814, 4265}},
    {"1234567890", {4513, 10961, 16474, 15}},
    {"3.14159", {18, 13, 9335, 2946}},
    {"\t\tint main() {\r\n  return 0;\r\n}\r\n", {197, 2129, 1925, 368, 987, 220, 471, 220, 15, 464, 1809}},
    {"naïve café", {3458, 38672, 588, 53050}},
    {"你好，世界", {57668, 53901, 3922, 102616}},
    {"Здравствуй, мир", {36551, 7094, 28086, 20812, 83680, 11, 115388}},
    {"\U0001F600\U0001F1E9\U0001F1EA", {76460, 222, 9468, 229, 102, 9468, 229, 103}},
    {"\u00A0x\u3000y", {4194, 87, 23249, 88}},
    {"a\u0301", {64, 54939}},
    {std::string(40, 'x'), {45202, 45202, 45202, 45202, 45202}},
    {" <|eot_id|>", {83739, 68, 354, 851, 91, 29}},
    {"<|begin_of_text|>", {27, 91, 7413, 3659, 4424, 91, 29}},
    {"\u017F 'S \u0130", {129, 123, 364, 50, 39521}},
    {"\u0661\u0662\u0663\u0664", {109610, 110546, 117413, 124079}},
    {"²³½", {30556, 44301, 27154}},
    {"line1\n\n\n  line2 \n", {1074, 16, 1432, 220, 1584, 17, 720}},
    {"'tis", {956, 285}},
    {"x'lly", {87, 3358, 88}},
    {"''s", {4708, 82}},
    {"o'clock", {78, 63510}},
    {"\n", {198}},
    {"\n\n", {271}},
    {"\r\n", {319}},
    {" ", {220}},
    {"  ", {256}},
    {"user", {882}},
    {"system", {9125}},
    {"assistant", {78191}},
    {"ipython", {23799, 4690}},
    {" yes", {10035}},
    {" no", {912}},
    {"yes", {9891}},
    {"no", {2201}},
    {" Yes", {7566}},
    {" No", {2360}},
    {" true", {837}},
    {" false", {905}},
    {" positive", {6928}},
    {" negative", {8389}},
    {" maybe", {7344}},
    {" neutral", {21277}},
    {" contradiction", {50859}},
    {" acceptable", {22281}},
    {" unacceptable", {44085}},
    {" duplicate", {23329}},
    {" equivalent", {13890}},
    {" A", {362}},
    {" B", {426}},
    {" C", {356}},
    {"0", {15}},
    {"1", {16}},
    {" entailment", {87092, 479}},
    {" 0", {220, 15}},
    {" 1", {220, 16}},
    {" việc", {100769}},
};

constexpr const char* kLlamaModel = "data/llama3-tokenizer/tokenizer.model";

}  // namespace

TEST_CASE("Llama 3's published ids are reproduced", "[data][tokenizer]") {
  const std::string file = shared_file_or_skip(kLlamaModel);
  if (file.empty()) {
    return;
  }
  const Tokenizer tokenizer = Tokenizer::load(file);
  for (const Golden& golden : kGolden) {
    INFO(golden.text);
    CHECK(tokenizer.encode(golden.text) == golden.ids);
    CHECK(tokenizer.decode(tokenizer.encode(golden.text)) == golden.text);
  }
}

TEST_CASE("every stored encoding of the Llama 3 tokenizer is reproduced", "[data][tokenizer]") {
  const std::string file = shared_file_or_skip(kLlamaModel);
  const std::string cases = shared_file_or_skip("data/llama3-tokenizer/encodings.json");
  if (file.empty() || cases.empty()) {
    return;
  }
  const Tokenizer tokenizer = Tokenizer::load(file);
  std::ifstream stream(cases);
  const auto root = nlohmann::json::parse(stream);
  REQUIRE(root["cases"].size() > 100);
  for (const auto& entry : root["cases"]) {
    const auto text = entry["text"].get<std::string>();
    INFO(text);
    CHECK(tokenizer.encode(text) == entry["ids"].get<Ids>());
    CHECK(tokenizer.decode(entry["ids"].get<Ids>()) == text);
  }
}

TEST_CASE("the special tokens of Llama 3 stand at their ids and carry the names of the variant",
          "[data][tokenizer]") {
  const std::string file = shared_file_or_skip(kLlamaModel);
  if (file.empty()) {
    return;
  }
  const Tokenizer newer = Tokenizer::load(file);
  CHECK(newer.vocab_size() == 128256);
  CHECK(newer.bos_id() == 128000);
  CHECK(newer.eos_id() == 128001);
  CHECK(newer.stop_ids() == Ids{128001, 128008, 128009});
  CHECK(newer.default_pad_id() == 128004);
  CHECK(newer.token_bytes(128005) == "<|reserved_special_token_2|>");
  CHECK(newer.token_bytes(128011) == "<|reserved_special_token_3|>");
  CHECK(newer.token_bytes(128255) == "<|reserved_special_token_247|>");
  CHECK(newer.special_id("<|start_header_id|>") == 128006);
  CHECK(newer.special_id("<|end_header_id|>") == 128007);
  CHECK(newer.special_id("<|python_tag|>") == 128010);
  const Tokenizer older = Tokenizer::load(file, TokenizerVariant::kLlama30);
  CHECK(older.stop_ids() == Ids{128001, 128009});
  CHECK(older.default_pad_id() == 128001);
  CHECK(older.token_bytes(128004) == "<|reserved_special_token_2|>");
  CHECK(older.token_bytes(128008) == "<|reserved_special_token_4|>");
  CHECK(older.token_bytes(128010) == "<|reserved_special_token_5|>");
  CHECK(older.token_bytes(128255) == "<|reserved_special_token_250|>");
}

TEST_CASE("params.json beside tokenizer.model tells Llama 3.0 from 3.1", "[data][tokenizer]") {
  const TemporaryFolder folder;
  folder.write("tokenizer.model", tokenizer_model_text(byte_tokens_and({"ab"})));
  CHECK(Tokenizer::load(folder.path("")).default_pad_id() == 257 + 4);
  folder.write("params.json", R"({"dim": 4096})");
  CHECK(Tokenizer::load(folder.path("")).default_pad_id() == 257 + 1);
  folder.write("params.json", R"({"dim": 4096, "use_scaled_rope": true})");
  CHECK(Tokenizer::load(folder.path("")).default_pad_id() == 257 + 4);
  CHECK(Tokenizer::load(folder.path(""), TokenizerVariant::kLlama30).default_pad_id() == 257 + 1);
}

TEST_CASE("merging short and long pieces equals the definition", "[data][tokenizer]") {
  const auto tokens =
      byte_tokens_and({"ab", "bc", "aa", "ca", "abc", "bca", "aab", "caab", "aaaa", "bcab", "cc"});
  const TemporaryFolder folder;
  const Tokenizer tokenizer = Tokenizer::load(folder.write("tokenizer.model", tokenizer_model_text(tokens)));
  std::mt19937 random(7);
  std::uniform_int_distribution<int> letter('a', 'c');
  for (std::size_t length : {5U, 6U, 17U, 60U, 99U, 100U, 101U, 128U, 300U}) {
    for (int repetition = 0; repetition < 40; ++repetition) {
      std::string piece;
      while (piece.size() < length) {
        piece += static_cast<char>(letter(random));
      }
      INFO(piece);
      CHECK(tokenizer.encode(piece) == merged_by_definition(tokens, piece));
    }
  }
}

TEST_CASE("a piece that is a token is that token even where merges cannot reach it", "[data][tokenizer]") {
  const TemporaryFolder folder;
  const Tokenizer tokenizer =
      Tokenizer::load(folder.write("tokenizer.model", tokenizer_model_text(byte_tokens_and({"xyz"}))));
  CHECK(tokenizer.encode("xyz") == Ids{256});
  CHECK(tokenizer.encode("xyzw") == Ids{'x', 'y', 'z', 'w'});
}

TEST_CASE("a long piece costs no quadratic time", "[data][tokenizer]") {
  const TemporaryFolder folder;
  const Tokenizer tokenizer =
      Tokenizer::load(folder.write("tokenizer.model", tokenizer_model_text(byte_tokens_and({"aa", "aaaa"}))));
  const std::size_t length = 1'000'000;  // a scan would need 10^12 steps
  CHECK(tokenizer.encode(std::string(length, 'a')).size() == length / 4);
  CHECK(tokenizer.encode(std::string(length, ' ')).size() == length);
}

TEST_CASE("text that spells a special token is ordinary text", "[data][tokenizer]") {
  const TemporaryFolder folder;
  const Tokenizer tokenizer =
      Tokenizer::load(folder.write("tokenizer.model", tokenizer_model_text(byte_tokens_and({}))));
  for (const std::int32_t id : tokenizer.encode("<|eot_id|> <|begin_of_text|>")) {
    CHECK_FALSE(tokenizer.is_special(id));
  }
  CHECK(tokenizer.decode(Ids{tokenizer.bos_id(), 'h', 'i', tokenizer.eos_id()}) ==
        "<|begin_of_text|>hi<|end_of_text|>");
}

TEST_CASE("a document stands between begin and end of text", "[data][tokenizer]") {
  const TemporaryFolder folder;
  const Tokenizer tokenizer =
      Tokenizer::load(folder.write("tokenizer.model", tokenizer_model_text(byte_tokens_and({}))));
  const DocumentEncoder encoder(tokenizer);
  CHECK(encoder.encode_document("hi") == Ids{256, 'h', 'i', 257});
  CHECK(encoder.encode_document("") == Ids{256, 257});
}

TEST_CASE("the beginning of a document is the beginning of its ids", "[data][tokenizer]") {
  const TemporaryFolder folder;
  const Tokenizer tokenizer = Tokenizer::load(
      folder.write("tokenizer.model", tokenizer_model_text(byte_tokens_and({" a", "bc", " def"}))));
  const DocumentEncoder encoder(tokenizer);
  std::string text;
  for (int i = 0; i < 300; ++i) {
    text += " a bc def, x" + std::to_string(i);
  }
  const Ids all = encoder.encode_document(text);
  for (const std::size_t enough :
       {std::size_t{1}, std::size_t{17}, std::size_t{400}, all.size(), 2 * all.size()}) {
    const Ids beginning = encoder.encode_beginning(text, enough);
    const std::size_t common = std::min(enough, all.size());
    REQUIRE(beginning.size() >= common);
    CHECK(std::equal(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(common), beginning.begin()));
    CHECK((enough > all.size() / 2 || beginning.size() < enough + 10));
  }
}

TEST_CASE("bytes that are not UTF-8 are encoded as U+FFFD", "[data][tokenizer]") {
  const TemporaryFolder folder;
  const Tokenizer tokenizer =
      Tokenizer::load(folder.write("tokenizer.model", tokenizer_model_text(byte_tokens_and({}))));
  CHECK(tokenizer.decode(tokenizer.encode("a\xFF\xE4\xBDz")) == "a\uFFFD\uFFFDz");
  CHECK(tokenizer.decode(Ids{0xE4, 0xBD}) == "\uFFFD");
}

TEST_CASE("the streaming decoder holds a character back until its bytes are complete", "[data][tokenizer]") {
  const TemporaryFolder folder;
  const Tokenizer tokenizer =
      Tokenizer::load(folder.write("tokenizer.model", tokenizer_model_text(byte_tokens_and({}))));
  StreamingDecoder stream(tokenizer);
  CHECK(stream.append('a') == "a");
  CHECK(stream.append(0xE4).empty());
  CHECK(stream.append(0xBD).empty());
  CHECK(stream.append(0xA0) == "你");
  CHECK(stream.append(0xF0).empty());
  CHECK(stream.append('b') == "\uFFFDb");
  CHECK(stream.append(0xC3).empty());
  CHECK(stream.finish() == "\uFFFD");
  CHECK(stream.finish().empty());
}

TEST_CASE("an id outside the vocabulary is an error that names it", "[data][tokenizer]") {
  const TemporaryFolder folder;
  const Tokenizer tokenizer =
      Tokenizer::load(folder.write("tokenizer.model", tokenizer_model_text(byte_tokens_and({}))));
  CHECK_THROWS_WITH(tokenizer.decode(Ids{512}), Catch::Contains("512"));
  CHECK_THROWS_AS(tokenizer.decode(Ids{-1}), ConfigError);
}
