// What malformed and foreign tokenizer files lead to: an IoError that says where, before anything large is
// allocated.
#include <catch2/catch.hpp>
#include <functional>
#include <nlohmann/json.hpp>

#include "caravan/core/error.h"
#include "caravan/data/tokenizer.h"
#include "src/data/byte_alphabet.h"
#include "support/tokenizer_files.h"

using namespace caravan;
using namespace caravan::test;
using Catch::Contains;
using nlohmann::json;
using Ids = std::vector<std::int32_t>;

namespace {

std::string small_model() {
  return tokenizer_model_text(byte_tokens_and({"ab", "abc"}));
}

/// Loads `content` and returns the error's message; fails the test when there is none.
std::string refusal(std::string_view content) {
  const TemporaryFolder folder;
  const std::string file = folder.write("tokenizer.model", content);
  try {
    Tokenizer::load(file);
  } catch (const IoError& error) {
    return error.what();
  }
  FAIL("the file was accepted");
  return {};
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

/// A tokenizer.json with the 256 bytes, then "ab" 256, "bc" 257, "abc" 258 and two special tokens.
json small_json() {
  json vocab;
  for (int byte = 0; byte < 256; ++byte) {
    vocab[to_byte_alphabet(std::string(1, static_cast<char>(byte)))] = byte;
  }
  vocab["ab"] = 256;
  vocab["bc"] = 257;
  vocab["abc"] = 258;
  return {
      {"added_tokens",
       {{{"id", 259}, {"content", "<|begin_of_text|>"}}, {{"id", 260}, {"content", "<|end_of_text|>"}}}},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "Sequence"},
        {"pretokenizers",
         {{{"type", "Split"},
           {"pattern", {{"Regex", "\\s+|\\S+"}}},
           {"behavior", "Isolated"},
           {"invert", false}},
          {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}}},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model",
       {{"type", "BPE"}, {"ignore_merges", false}, {"vocab", vocab}, {"merges", {"b c", "a b", "a bc"}}}}};
}

Tokenizer load_json(const json& root) {
  const TemporaryFolder folder;
  return Tokenizer::load(folder.write("tokenizer.json", root.dump()));
}

/// small_json() with one change must be refused.
std::string json_refusal(const std::function<void(json&)>& change) {
  json root = small_json();
  change(root);
  return refusal(root.dump());
}

}  // namespace

TEST_CASE("tokenizer.model with a damaged line is refused with its number", "[data][tokenizer_files]") {
  const std::string text = small_model();
  CHECK_THAT(refusal(replaced(text, "YWI= 256", "YW* 256")), Contains(":257:") && Contains("base64"));
  CHECK_THAT(refusal(replaced(text, "YWI= 256", "YWI 256")), Contains(":257:") && Contains("base64"));
  CHECK_THAT(refusal(replaced(text, "YWI= 256", "YWJ= 256")), Contains(":257:") && Contains("base64"));
  CHECK_THAT(refusal(replaced(text, "YWI= 256", "YWI=256")), Contains(":257:"));
  CHECK_THAT(refusal(replaced(text, "YWI= 256", "YWI= 2x6")), Contains(":257:") && Contains("rank"));
  CHECK_THAT(refusal(replaced(text, "YWI= 256", "YWI= -1")), Contains(":257:") && Contains("rank"));
  CHECK_THAT(refusal(replaced(text, "YWI= 256", "YWI= 99999999999999999999")), Contains("rank"));
}

TEST_CASE("tokenizer.model whose ranks or tokens do not add up is refused", "[data][tokenizer_files]") {
  const std::string text = small_model();
  CHECK_THAT(refusal(replaced(text, "YWI= 256", "YWI= 255")), Contains("rank 255 occurs twice"));
  CHECK_THAT(refusal(replaced(text, "YWI= 256", "YWI= 4000000000")), Contains("rank 4000000000"));
  CHECK_THAT(refusal(replaced(text, "YWI= 256", "YWJj 256")), Contains("same token bytes"));
  CHECK_THAT(refusal(replaced(text, "YWI= 256\n", "")), Contains("257") && Contains("gaps"));
  CHECK_THAT(refusal(replaced(text, "YQ== 97\n", "YXh4 97\n")), Contains("0x61"));
  CHECK_THAT(refusal(text.substr(0, 900)), Contains("0x") || Contains("base64") || Contains("base64 rank"));
  CHECK_THAT(refusal(""), Contains("empty"));
  CHECK_THAT(refusal("\n\n\n"), Contains("empty"));
}

TEST_CASE("tokenizer.model with a huge line or binary content is refused", "[data][tokenizer_files]") {
  CHECK_THAT(refusal(std::string(8'000'000, 'A')), Contains("base64 rank"));
  CHECK_THAT(refusal(std::string(8'000'000, 'A') + " 0"), Contains("bytes, at most"));
  CHECK_THAT(refusal(std::string("\n\x0E\n\x05<unk>\x15\x00\x00", 12)), Contains("SentencePiece"));
  std::string lines;  // a string for each would take sixteen times the file
  for (int i = 0; i <= 1 << 21; ++i) {
    lines += "a\n";
  }
  CHECK_THAT(refusal(lines), Contains("has 2097153 lines") && Contains("at most 2097152"));
}

TEST_CASE("a path without a tokenizer is an error that names it", "[data][tokenizer_files]") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(Tokenizer::load(folder.path("absent")), Contains("absent"));
  CHECK_THROWS_WITH(Tokenizer::load(folder.path("")), Contains("neither"));
  folder.write("tokenizer.model", small_model());
  folder.write("params.json", "[1, 2");
  CHECK_THROWS_WITH(Tokenizer::load(folder.path("")), Contains("params.json"));
}

TEST_CASE("tokenizer.json merges in the order of its list", "[data][tokenizer_files]") {
  json root = small_json();
  CHECK(load_json(root).encode("abc") == Ids{258});  // b c, then a bc
  CHECK(load_json(root).encode("abab") == Ids{256, 256});
  root["model"]["merges"] = {"a b", "b c"};
  CHECK(load_json(root).encode("abc") == Ids{256, 'c'});
  root["model"]["merges"] = json::parse(R"([["b", "c"], ["a", "b"]])");
  CHECK(load_json(root).encode("abc") == Ids{'a', 257});
  CHECK(load_json(root).encode(std::string(200, 'a') + "bc").back() == 257);
  root["model"]["ignore_merges"] = true;
  CHECK(load_json(root).encode("abc") == Ids{258});
}

TEST_CASE("tokenizer.json names its special tokens, which the vocabulary may repeat",
          "[data][tokenizer_files]") {
  json root = small_json();
  const Tokenizer plain = load_json(root);
  CHECK(plain.vocab_size() == 261);
  CHECK(plain.bos_id() == 259);
  CHECK(plain.eos_id() == 260);
  CHECK(plain.stop_ids() == Ids{260});
  CHECK(plain.default_pad_id() == 260);
  root["model"]["vocab"]["<|end_of_text|>"] = 260;
  root["added_tokens"].push_back({{"id", 261}, {"content", "<|finetune_right_pad_id|>"}});
  root["added_tokens"].push_back({{"id", 262}, {"content", "<|eot_id|>"}});
  const Tokenizer more = load_json(root);
  CHECK(more.default_pad_id() == 261);
  CHECK(more.stop_ids() == Ids{260, 262});
  CHECK(more.decode(more.encode("<|end_of_text|>")) == "<|end_of_text|>");
  CHECK(more.encode("<|end_of_text|>").size() == 15);
  root["added_tokens"] = json::array();
  root["model"]["vocab"].erase("<|end_of_text|>");
  CHECK(load_json(root).vocab_size() == 259);
  CHECK_THROWS_AS(load_json(root).bos_id(), ConfigError);
}

TEST_CASE("tokenizer.json of another kind is refused with the reason", "[data][tokenizer_files]") {
  CHECK_THAT(json_refusal([](json& j) { j["model"]["type"] = "Unigram"; }), Contains("Unigram is not BPE"));
  CHECK_THAT(json_refusal([](json& j) { j["normalizer"] = {{"type", "NFC"}}; }), Contains("normalizer"));
  CHECK_THAT(json_refusal([](json& j) { j["decoder"] = {{"type", "WordPiece"}}; }), Contains("decoder"));
  CHECK_THAT(json_refusal([](json& j) { j.erase("pre_tokenizer"); }), Contains("pre_tokenizer"));
  CHECK_THAT(json_refusal([](json& j) { j["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"; }),
             Contains("Removed"));
  CHECK_THAT(json_refusal([](json& j) { j["pre_tokenizer"]["pretokenizers"][0]["type"] = "Digits"; }),
             Contains("Digits"));
  CHECK_THAT(json_refusal([](json& j) { j["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = true; }),
             Contains("add_prefix_space"));
  CHECK_THAT(json_refusal([](json& j) {
               j["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {{"Regex", "(("}};
             }),
             Contains("compile"));
  CHECK_THAT(json_refusal([](json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }),
             Contains("end_of_word_suffix"));
  CHECK_THAT(json_refusal([](json& j) { j["model"]["dropout"] = 0.1; }), Contains("dropout"));
}

TEST_CASE("tokenizer.json whose ids or merges do not add up is refused", "[data][tokenizer_files]") {
  CHECK_THAT(json_refusal([](json& j) { j["model"]["vocab"]["abc"] = 257; }), Contains("257 is given twice"));
  CHECK_THAT(json_refusal([](json& j) { j["model"]["vocab"]["abc"] = 4000000000; }), Contains("4000000000"));
  CHECK_THAT(json_refusal([](json& j) { j["model"]["vocab"]["abc"] = -1; }), Contains("-1"));
  CHECK_THAT(json_refusal([](json& j) { j["model"]["vocab"]["abc"] = "258"; }), Contains("258"));
  CHECK_THAT(json_refusal([](json& j) { j["model"]["vocab"].erase("ab"); }), Contains("without gaps"));
  CHECK_THAT(json_refusal([](json& j) { j["model"]["vocab"]["\u4F60"] = 261; }), Contains("alphabet"));
  CHECK_THAT(json_refusal([](json& j) {
               j["model"]["vocab"].erase("a");
               j["model"]["vocab"]["xy"] = 'a';
             }),
             Contains("0x61"));
  CHECK_THAT(json_refusal([](json& j) { j["added_tokens"][1]["content"] = "<|begin_of_text|>"; }),
             Contains("occurs twice"));
  CHECK_THAT(json_refusal([](json& j) { j["model"]["vocab"]["<|end_of_text|>"] = 3; }),
             Contains("another id"));
  CHECK_THAT(json_refusal([](json& j) { j["model"]["merges"].push_back("b b"); }), Contains("merges[3]"));
  CHECK_THAT(json_refusal([](json& j) { j["model"]["merges"].push_back("b b b"); }), Contains("merges[3]"));
  CHECK_THAT(json_refusal([](json& j) { j["model"]["merges"].push_back({"b", 3}); }), Contains("merges[3]"));
  CHECK_THAT(json_refusal([](json& j) { j["model"].erase("merges"); }), Contains("merges"));
}

TEST_CASE("tokenizer.json that is cut, nested without end, or of wrong types is refused",
          "[data][tokenizer_files]") {
  const json good = small_json();
  const std::string text = good.dump();
  CHECK_THAT(refusal(text.substr(0, text.size() / 2)), Contains("not valid JSON"));
  CHECK_THAT(refusal("{\"a\":" + std::string(1'000'000, '[')), Contains("nested"));
  CHECK_THAT(refusal("{}"), Contains("pre_tokenizer"));
  CHECK_THAT(refusal("{\"model\": \"\xFF\"}"), Contains("not valid JSON"));
  for (const auto& entry : good.items()) {
    for (const json& wrong : {json(3), json("x"), json::array({1}), json{{"type", 7}}, json(true)}) {
      INFO(entry.key() << " = " << wrong.dump());
      CHECK_FALSE(json_refusal([&](json& j) { j[entry.key()] = wrong; }).empty());
    }
  }
}
