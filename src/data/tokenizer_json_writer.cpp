#include "tokenizer_json_writer.h"

#include <array>
#include <nlohmann/json.hpp>

#include "byte_alphabet.h"
#include "pre_tokenizer.h"

namespace caravan {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<const char*, kTrainedSpecialTokens> kSpecialNames = {
    "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>"};

Json byte_level(bool trim_offsets) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", trim_offsets},
          {"use_regex", false}};
}

Json pre_tokenizer() {
  const Json split = {{"type", "Split"},
                      {"pattern", {{"Regex", kLlama3Pattern}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  return {{"type", "Sequence"}, {"pretokenizers", Json::array({split, byte_level(true)})}};
}

/// "<|begin_of_text|> A" and "<|begin_of_text|> A <|begin_of_text|> B", as Llama 3's.
Json post_processor(std::size_t begin_id) {
  const auto part = [](const char* kind, const char* id, int type) -> Json {
    return {{kind, {{"id", id}, {"type_id", type}}}};
  };
  const char* begin = kSpecialNames[0];
  const Json first = part("SpecialToken", begin, 0);
  const Json a = part("Sequence", "A", 0);
  const Json second = part("SpecialToken", begin, 1);
  const Json b = part("Sequence", "B", 1);
  const Json begin_token = {{"id", begin}, {"ids", {begin_id}}, {"tokens", {begin}}};
  const Json template_processing = {{"type", "TemplateProcessing"},
                                    {"single", Json::array({first, a})},
                                    {"pair", Json::array({first, a, second, b})},
                                    {"special_tokens", {{begin, begin_token}}}};
  return {{"type", "Sequence"}, {"processors", Json::array({byte_level(false), template_processing})}};
}

Json model(const TrainedBpe& trained) {
  Json vocab = Json::object();
  std::vector<std::string> names;
  names.reserve(trained.tokens.size());
  for (const auto& token : trained.tokens) {
    names.push_back(to_byte_alphabet(token));
  }
  // An ordered_json object looks through all its keys at every insertion; its vector does not.
  auto& entries = vocab.get_ref<Json::object_t&>();
  entries.reserve(names.size());
  for (const std::string& name : names) {
    entries.Container::emplace_back(name, entries.size());
  }
  Json merges = Json::array();
  for (const auto& [left, right] : trained.merges) {
    merges.push_back(
        Json::array({names[static_cast<std::size_t>(left)], names[static_cast<std::size_t>(right)]}));
  }
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"ignore_merges", true},
          {"vocab", std::move(vocab)},
          {"merges", std::move(merges)}};
}

}  // namespace

std::string tokenizer_json_text(const TrainedBpe& trained) {
  Json added = Json::array();
  std::size_t next_id = trained.tokens.size();
  for (const char* name : kSpecialNames) {
    added.push_back({{"id", next_id++},
                     {"content", name},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const Json root = {{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", std::move(added)},
                     {"normalizer", nullptr},
                     {"pre_tokenizer", pre_tokenizer()},
                     {"post_processor", post_processor(trained.tokens.size())},
                     {"decoder", byte_level(true)},
                     {"model", model(trained)}};
  return root.dump(1) + "\n";
}

}  // namespace caravan
