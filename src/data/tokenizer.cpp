#include "caravan/data/tokenizer.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "caravan/core/error.h"
#include "caravan/core/text_file.h"
#include "tokenizer_tables.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMaxFileBytes = std::int64_t{64} << 20U;  // Llama 3's tokenizer.json has 9 MB

std::string find_file(const std::string& path) {
  if (!fs::is_directory(path)) {
    return path;
  }
  for (const char* name : {"tokenizer.json", "tokenizer.model", "original/tokenizer.model"}) {
    if (const fs::path file = fs::path(path) / name; fs::exists(file)) {
      return file.string();
    }
  }
  fail<IoError>("{}: the folder has neither tokenizer.json nor tokenizer.model", path);
}

/// Meta's tokenizer.model is the same file for all of Llama 3; params.json tells 3.0 from its successors.
TokenizerVariant variant_beside(const std::string& path) {
  const fs::path params = fs::path(path).parent_path() / "params.json";
  if (!fs::exists(params)) {
    return TokenizerVariant::kLlama31;
  }
  const auto root = nlohmann::json::parse(read_text_file(params.string(), kMaxFileBytes), nullptr, false);
  if (!root.is_object()) {
    fail<IoError>("{}: not a JSON object; it says which Llama 3 the tokenizer beside it belongs to",
                  params.string());
  }
  const auto scaled = root.find("use_scaled_rope");
  const bool is_3_0 = scaled == root.end() || *scaled == false;
  return is_3_0 ? TokenizerVariant::kLlama30 : TokenizerVariant::kLlama31;
}

TokenizerSpec read_spec(const std::string& path, TokenizerVariant variant) {
  const std::string file = find_file(path);
  if (!fs::exists(file)) {
    fail<IoError>(
        "{}: cannot be read: no such file; give a tokenizer.model, a tokenizer.json or a folder with one",
        file);
  }
  const std::string content = read_text_file(file, kMaxFileBytes);
  const std::size_t first = content.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) {
    fail<IoError>("{}: the file is empty; download it again", file);
  }
  if (content[first] == '{') {
    return parse_tokenizer_json(file, content);
  }
  return parse_tokenizer_model(file, content,
                               variant == TokenizerVariant::kAuto ? variant_beside(file) : variant);
}

std::optional<std::int32_t> find_special(const TokenizerSpec& spec, std::string_view name) {
  for (std::size_t id = 0; id < spec.tokens.size(); ++id) {
    if (spec.special[id] && spec.tokens[id] == name) {
      return static_cast<std::int32_t>(id);
    }
  }
  return std::nullopt;
}

/// The first of `names` that is a special token.
std::optional<std::int32_t> find_special(const TokenizerSpec& spec,
                                         std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) {
    if (const auto id = find_special(spec, name)) {
      return id;
    }
  }
  return std::nullopt;
}

}  // namespace

detail::TokenizerTables::TokenizerTables(const TokenizerSpec& spec)
    : path(spec.path),
      pre_tokenizer(spec.pattern, spec.path),
      encoder(spec),
      special(spec.special),
      bos(find_special(spec, {"<|begin_of_text|>", "<s>", "<|endoftext|>"})),
      eos(find_special(spec, {"<|end_of_text|>", "</s>", "<|endoftext|>"})),
      pad(find_special(spec, {"<|finetune_right_pad_id|>"})) {
  if (eos) {
    stops.push_back(*eos);
  }
  for (const std::string_view name : {"<|eom_id|>", "<|eot_id|>"}) {
    if (const auto id = find_special(spec, name)) {
      stops.push_back(*id);
    }
  }
}

Tokenizer Tokenizer::load(const std::string& path, TokenizerVariant variant) {
  return Tokenizer(std::make_shared<const detail::TokenizerTables>(read_spec(path, variant)));
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<std::int32_t> ids;
  ids.reserve(text.size() / 3);
  append_ids(text, ids);
  return ids;
}

void Tokenizer::append_ids(std::string_view text, std::vector<std::int32_t>& ids, std::size_t enough) const {
  std::string mended;
  if (valid_utf8_prefix(text) != text.size()) {
    mended = replace_invalid_utf8(text);
    text = mended;
  }
  PieceCursor pieces(tables_->pre_tokenizer, text);
  for (std::string_view piece; ids.size() < enough && pieces.next(piece);) {
    tables_->encoder.append(piece, ids);
  }
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids) const {
  std::string bytes;
  for (const std::int32_t id : ids) {
    bytes += token_bytes(id);
  }
  return valid_utf8_prefix(bytes) == bytes.size() ? bytes : replace_invalid_utf8(bytes);
}

std::string_view Tokenizer::token_bytes(std::int32_t id) const {
  if (id < 0 || id >= vocab_size()) {
    fail<ConfigError>("token id {} is outside 0 .. {} of {}; are these ids of another tokenizer?", id,
                      vocab_size() - 1, path());
  }
  return tables_->encoder.vocabulary().token(id);
}

std::int64_t Tokenizer::vocab_size() const {
  return tables_->encoder.vocabulary().size();
}

bool Tokenizer::is_special(std::int32_t id) const {
  return id >= 0 && id < vocab_size() && tables_->special[static_cast<std::size_t>(id)];
}

std::optional<std::int32_t> Tokenizer::special_id(std::string_view name) const {
  for (std::int32_t id = 0; id < vocab_size(); ++id) {
    if (is_special(id) && token_bytes(id) == name) {
      return id;
    }
  }
  return std::nullopt;
}

std::int32_t Tokenizer::bos_id() const {
  if (!tables_->bos) {
    fail<ConfigError>("{}: no token begins a text; add <|begin_of_text|> to added_tokens", path());
  }
  return *tables_->bos;
}

std::int32_t Tokenizer::eos_id() const {
  if (!tables_->eos) {
    fail<ConfigError>("{}: no token ends a text; add <|end_of_text|> to added_tokens", path());
  }
  return *tables_->eos;
}

const std::vector<std::int32_t>& Tokenizer::stop_ids() const {
  return tables_->stops;
}

std::int32_t Tokenizer::default_pad_id() const {
  return tables_->pad ? *tables_->pad : eos_id();
}

const std::string& Tokenizer::path() const {
  return tables_->path;
}

}  // namespace caravan
