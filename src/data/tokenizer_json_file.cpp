// Hugging Face's tokenizer.json, byte-level BPE only: what else it can say is refused, not ignored.
#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "byte_alphabet.h"
#include "caravan/core/error.h"
#include "caravan/core/excerpt.h"
#include "tokenizer_spec.h"

namespace caravan {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 32;            // real files have 6
constexpr std::size_t kMaxReason = 300;  // the parser quotes what it read last

class JsonReader {
 public:
  JsonReader(const std::string& path, const json& root) : root_(root) { spec_.path = path; }

  TokenizerSpec read() {
    if (!member(root_, "normalizer").is_null()) {
      refuse("normalizer", "a normalizer would change the text");
    }
    read_pre_tokenizer();
    const json& decoder = member(root_, "decoder");
    if (!decoder.is_null() && text(decoder, "type", "decoder") != "ByteLevel") {
      refuse("decoder", "only ByteLevel is supported");
    }
    read_model();
    return std::move(spec_);
  }

 private:
  using Ids = std::unordered_map<std::string_view, std::int32_t>;

  [[noreturn]] void refuse(std::string_view place, std::string_view reason) const {
    fail<IoError>("{}: {}: {}; Caravan reads byte-level BPE as Llama 3's tokenizer.json", spec_.path, place,
                  reason);
  }

  static const json& member(const json& object, const char* key) {
    static const json absent;
    if (!object.is_object()) {
      return absent;
    }
    const auto found = object.find(key);
    return found == object.end() ? absent : *found;
  }

  const std::string& text(const json& object, const char* key, std::string_view place) const {
    const json& value = member(object, key);
    if (!value.is_string()) {
      refuse(place, fmt::format("`{}` is not a string", key));
    }
    return value.get_ref<const std::string&>();
  }

  bool flag(const json& object, const char* key, bool standard, std::string_view place) const {
    const json& value = member(object, key);
    if (!value.is_null() && !value.is_boolean()) {
      refuse(place, fmt::format("`{}` is not true or false", key));
    }
    return value.is_null() ? standard : value.get<bool>();
  }

  void read_pre_tokenizer() {
    const json& top = member(root_, "pre_tokenizer");
    const bool sequence = top.is_object() && text(top, "type", "pre_tokenizer") == "Sequence";
    const json list = sequence ? member(top, "pretokenizers") : json::array({top});
    if (!list.is_array() || list.empty() || list.size() > 2 || !list.back().is_object() ||
        text(list.back(), "type", "pre_tokenizer") != "ByteLevel") {
      refuse("pre_tokenizer", "must be ByteLevel, or a Sequence of one Split and ByteLevel");
    }
    if (flag(list.back(), "add_prefix_space", true, "pre_tokenizer.ByteLevel")) {
      refuse("pre_tokenizer.ByteLevel", "add_prefix_space: true is not supported");
    }
    const bool own_pattern = flag(list.back(), "use_regex", true, "pre_tokenizer.ByteLevel");
    if (list.size() == 1) {
      spec_.pattern = own_pattern ? kGpt2Pattern : std::string_view{};
      return;
    }
    if (own_pattern) {
      refuse("pre_tokenizer", "a Split before ByteLevel needs use_regex: false");
    }
    read_split(list.front());
  }

  void read_split(const json& split) {
    constexpr std::string_view kPlace = "pre_tokenizer.Split";
    if (text(split, "type", kPlace) != "Split") {
      refuse("pre_tokenizer",
             fmt::format("{} before ByteLevel is not supported", excerpt(text(split, "type", kPlace))));
    }
    const std::string& behavior = text(split, "behavior", kPlace);
    const bool invert = flag(split, "invert", false, kPlace);
    // Removed and inverted keeps the matches and drops what is between them, which Llama's pattern leaves
    // empty.
    if (!(behavior == "Isolated" && !invert) && !(behavior == "Removed" && invert)) {
      refuse(kPlace, fmt::format("behavior {} with invert: {} is not supported", excerpt(behavior), invert));
    }
    spec_.pattern = text(member(split, "pattern"), "Regex", kPlace);
    if (spec_.pattern.empty()) {
      refuse(kPlace, "the pattern is empty");
    }
  }

  void read_model() {
    const json& model = member(root_, "model");
    if (!model.is_object()) {
      refuse("model", "is missing");
    }
    if (model.contains("type") && text(model, "type", "model") != "BPE") {
      refuse("model.type", fmt::format("{} is not BPE", excerpt(text(model, "type", "model"))));
    }
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const json& value = member(model, key);
      if (!value.is_null() && !(value.is_string() && value.get_ref<const std::string&>().empty())) {
        refuse("model", fmt::format("`{}` is not supported", key));
      }
    }
    if (const json& dropout = member(model, "dropout"); !dropout.is_null() && dropout != 0.0) {
      refuse("model", "dropout makes ids random");
    }
    const json& vocab = member(model, "vocab");
    if (!vocab.is_object() || vocab.empty()) {
      refuse("model.vocab", "is missing or empty");
    }
    spec_.whole_piece = flag(model, "ignore_merges", false, "model");
    Ids ids;
    read_tokens(vocab, ids);
    check_all_bytes_present(spec_);
    read_merges(member(model, "merges"), ids);
  }

  /// Ids are dense, so that none can be larger than what the file can fill: nothing is allocated by a number
  /// in the file.
  void place_token(const json& id, std::string_view name, std::string bytes, bool special) {
    const std::size_t count = spec_.tokens.size();
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= count) {
      refuse(special ? "added_tokens" : "model.vocab",
             fmt::format("the id {} of `{}` is not one of 0 .. {}, which {} tokens must fill without gaps",
                         excerpt(id.dump(), 40), excerpt(name, 40), count - 1, count));
    }
    const auto at = id.get<std::size_t>();
    if (!spec_.tokens[at].empty()) {
      refuse(special ? "added_tokens" : "model.vocab", fmt::format("the id {} is given twice", at));
    }
    if (bytes.empty() || bytes.size() > kMaxTokenBytes) {
      refuse("model.vocab", fmt::format("the token {} has {} bytes, 1 to {} are accepted", at, bytes.size(),
                                        kMaxTokenBytes));
    }
    spec_.tokens[at] = std::move(bytes);
    spec_.special[at] = special;
  }

  void read_tokens(const json& vocab, Ids& ids) {
    const json& added = member(root_, "added_tokens");
    std::unordered_map<std::string_view, const json*> specials;
    if (!added.is_null() && !added.is_array()) {
      refuse("added_tokens", "is not a list");
    }
    for (const json& token : added) {
      if (!specials.emplace(text(token, "content", "added_tokens"), &member(token, "id")).second) {
        refuse("added_tokens",
               fmt::format("`{}` occurs twice", excerpt(text(token, "content", "added_tokens"))));
      }
    }
    std::size_t count = specials.size();
    for (const auto& entry : vocab.items()) {
      count += specials.contains(entry.key()) ? 0 : 1;
    }
    if (count > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
      refuse("model.vocab", "too many tokens");
    }
    spec_.tokens.resize(count);
    spec_.special.resize(count);
    for (const auto& [name, id] : specials) {
      place_token(*id, name, std::string(name), true);
    }
    for (auto entry = vocab.begin(); entry != vocab.end(); ++entry) {
      if (const auto special = specials.find(entry.key()); special != specials.end()) {
        if (*special->second != *entry) {
          refuse("added_tokens", fmt::format("`{}` has another id in model.vocab", excerpt(entry.key())));
        }
        continue;
      }
      std::optional<std::string> bytes = from_byte_alphabet(entry.key());
      if (!bytes) {
        refuse("model.vocab",
               fmt::format("`{}` is not written in the byte-level alphabet", excerpt(entry.key())));
      }
      place_token(*entry, entry.key(), *std::move(bytes), false);
      ids.emplace(entry.key(), entry->get<std::int32_t>());
    }
  }

  void read_merges(const json& merges, const Ids& ids) {
    if (!merges.is_array()) {
      refuse("model.merges", "is missing or not a list");
    }
    std::vector<MergeRule> rules;
    rules.reserve(merges.size());
    std::string joined;
    for (std::size_t i = 0; i < merges.size(); ++i) {
      const auto [left, right] = split_merge(merges[i], i);
      joined.assign(left).append(right);
      const auto found = [&](std::string_view token) {
        const auto id = ids.find(token);
        if (id == ids.end()) {
          refuse(fmt::format("model.merges[{}]", i),
                 fmt::format("`{}` is not in the vocabulary", excerpt(token)));
        }
        return id->second;
      };
      rules.push_back({found(left), found(right), found(joined)});
    }
    spec_.merges = std::move(rules);
  }

  /// "a b" in older files, ["a", "b"] in newer ones.
  std::pair<std::string_view, std::string_view> split_merge(const json& merge, std::size_t i) const {
    if (merge.is_string()) {
      const std::string_view both = merge.get_ref<const std::string&>();
      const std::size_t space = both.find(' ');
      if (space != std::string_view::npos && both.find(' ', space + 1) == std::string_view::npos) {
        return {both.substr(0, space), both.substr(space + 1)};
      }
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      return {merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>()};
    }
    refuse(fmt::format("model.merges[{}]", i), "is not a pair of tokens");
  }

  const json& root_;
  TokenizerSpec spec_;
};

}  // namespace

void check_all_bytes_present(const TokenizerSpec& spec) {
  std::vector<bool> present(256, false);
  for (std::size_t id = 0; id < spec.tokens.size(); ++id) {
    if (spec.tokens[id].size() == 1 && !spec.special[id]) {
      present[static_cast<std::uint8_t>(spec.tokens[id][0])] = true;
    }
  }
  const auto missing = std::find(present.begin(), present.end(), false);
  if (missing != present.end()) {
    fail<IoError>("{}: the byte 0x{:02X} is not a token of its own; the file is cut or not byte-level BPE",
                  spec.path, missing - present.begin());
  }
}

TokenizerSpec parse_tokenizer_json(const std::string& path, std::string_view content) {
  const auto limit_depth = [&](int depth, json::parse_event_t, json&) {
    if (depth > kMaxDepth) {
      fail<IoError>("{}: nested deeper than {} levels; this is not a tokenizer.json", path, kMaxDepth);
    }
    return true;
  };
  json root;
  try {
    root = json::parse(content, limit_depth);
  } catch (const json::exception& error) {
    fail<IoError>("{}: not valid JSON ({}); download the file again", path,
                  excerpt(error.what(), kMaxReason));
  }
  return JsonReader(path, root).read();
}

}  // namespace caravan
