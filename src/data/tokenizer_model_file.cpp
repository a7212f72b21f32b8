// Meta's tokenizer.model: one line "base64(bytes) rank" per token, the special tokens named by a table.
#include <algorithm>
#include <array>
#include <charconv>
#include <numeric>

#include "caravan/core/error.h"
#include "caravan/core/excerpt.h"
#include "tokenizer_spec.h"

namespace caravan {
namespace {

constexpr std::size_t kSpecialTokens = 256;
constexpr std::size_t kMaxTokens = std::size_t{1} << 21U;  // Llama 3 has 128000

/// The named special tokens by offset; every other offset is <|reserved_special_token_N|>, N counting up.
struct SpecialName {
  std::size_t offset;
  std::string_view name;
};
constexpr std::array kLlama30Names = {SpecialName{0, "<|begin_of_text|>"}, SpecialName{1, "<|end_of_text|>"},
                                      SpecialName{6, "<|start_header_id|>"},
                                      SpecialName{7, "<|end_header_id|>"}, SpecialName{9, "<|eot_id|>"}};
constexpr std::array kLlama31Names = {SpecialName{0, "<|begin_of_text|>"},
                                      SpecialName{1, "<|end_of_text|>"},
                                      SpecialName{4, "<|finetune_right_pad_id|>"},
                                      SpecialName{6, "<|start_header_id|>"},
                                      SpecialName{7, "<|end_header_id|>"},
                                      SpecialName{8, "<|eom_id|>"},
                                      SpecialName{9, "<|eot_id|>"},
                                      SpecialName{10, "<|python_tag|>"}};

std::vector<std::string> special_names(TokenizerVariant variant) {
  std::vector<std::string> names(kSpecialTokens);
  const auto assign = [&](const auto& table) {
    for (const SpecialName& entry : table) {
      names[entry.offset] = entry.name;
    }
  };
  variant == TokenizerVariant::kLlama30 ? assign(kLlama30Names) : assign(kLlama31Names);
  std::size_t reserved = 0;
  for (std::string& name : names) {
    if (name.empty()) {
      name = fmt::format("<|reserved_special_token_{}|>", reserved++);
    }
  }
  return names;
}

int base64_value(char c) {
  if (c >= 'A' && c <= 'Z') {
    return c - 'A';
  }
  if (c >= 'a' && c <= 'z') {
    return c - 'a' + 26;
  }
  if (c >= '0' && c <= '9') {
    return c - '0' + 52;
  }
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/// RFC 4648 section 4 with padding; nullopt for anything else, also for non-zero bits under the padding.
std::optional<std::string> decode_base64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0) {
    return std::nullopt;
  }
  const std::size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  std::string bytes;
  std::uint32_t bits = 0;
  int n_bits = 0;
  for (const char c : text.substr(0, text.size() - padding)) {
    const int value = base64_value(c);
    if (value < 0) {
      return std::nullopt;
    }
    bits = ((bits << 6) | static_cast<std::uint32_t>(value)) & 0xFFFFU;
    n_bits += 6;
    if (n_bits >= 8) {
      n_bits -= 8;
      bytes.push_back(static_cast<char>((bits >> n_bits) & 0xFFU));
    }
  }
  if ((bits & ((1U << n_bits) - 1U)) != 0) {
    return std::nullopt;
  }
  return bytes;
}

struct Line {
  std::string token;
  std::int64_t rank;
};

Line parse_line(const std::string& where, std::string_view line) {
  const std::size_t space = line.find(' ');
  if (space == std::string_view::npos) {
    fail<IoError>(
        "{}: `{}` is not `base64 rank`; a tokenizer.model of Llama 3 is text (SentencePiece models, as "
        "Llama 2 has, are not supported)",
        where, excerpt(line, 40));
  }
  const std::string_view encoded = line.substr(0, space);
  const std::string_view number = line.substr(space + 1);
  std::optional<std::string> token = decode_base64(encoded);
  if (!token) {
    fail<IoError>("{}: `{}` is not base64; download the file again", where, excerpt(encoded, 40));
  }
  if (token->size() > kMaxTokenBytes) {
    fail<IoError>("{}: a token of {} bytes, at most {} are accepted", where, token->size(), kMaxTokenBytes);
  }
  std::int64_t rank = -1;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), rank);
  if (error != std::errc{} || end != number.data() + number.size() || rank < 0) {
    fail<IoError>("{}: the rank `{}` is not a non-negative integer", where, excerpt(number, 40));
  }
  return {*std::move(token), rank};
}

/// The lines that are not empty.
std::size_t count_lines(std::string_view content) {
  std::size_t count = 0;
  char before = '\n';
  for (const char c : content) {
    count += before == '\n' && c != '\n' && c != '\r' ? 1 : 0;
    before = c;
  }
  return count;
}

/// Same bytes under two ids would make encoding ambiguous.
void check_distinct(const TokenizerSpec& spec, std::size_t count) {
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return spec.tokens[a] < spec.tokens[b]; });
  const auto twice = std::adjacent_find(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return spec.tokens[a] == spec.tokens[b];
  });
  if (twice != order.end()) {
    fail<IoError>("{}: the ranks {} and {} have the same token bytes; download the file again", spec.path,
                  std::min(twice[0], twice[1]), std::max(twice[0], twice[1]));
  }
}

}  // namespace

TokenizerSpec parse_tokenizer_model(const std::string& path, std::string_view content,
                                    TokenizerVariant variant) {
  TokenizerSpec spec;
  spec.path = path;
  // Every rank is below the number of tokens: nothing is allocated by a number that a hostile file names.
  const std::size_t n_lines = count_lines(content);
  if (n_lines > kMaxTokens) {
    fail<IoError>("{}: has {} lines; a tokenizer.model has one for each of at most {} tokens", path, n_lines,
                  kMaxTokens);
  }
  std::size_t count = 0;
  std::vector<bool> seen(n_lines, false);
  spec.tokens.resize(n_lines);
  for (std::size_t number = 1; !content.empty(); ++number) {
    const std::size_t end = content.find('\n');
    std::string_view line = content.substr(0, end);
    content.remove_prefix(end == std::string_view::npos ? content.size() : end + 1);
    if (line.ends_with('\r')) {
      line.remove_suffix(1);
    }
    if (line.empty()) {
      continue;
    }
    const std::string where = fmt::format("{}:{}", path, number);
    Line entry = parse_line(where, line);
    const auto rank = static_cast<std::size_t>(entry.rank);
    if (rank >= n_lines) {
      fail<IoError>("{}: rank {} in a file of {} tokens; ranks are 0, 1, 2, ... without gaps", where, rank,
                    n_lines);
    }
    if (seen[rank]) {
      fail<IoError>("{}: rank {} occurs twice; download the file again", where, rank);
    }
    seen[rank] = true;
    spec.tokens[rank] = std::move(entry.token);
    ++count;
  }
  const auto gap = std::find(seen.begin(), seen.begin() + static_cast<std::ptrdiff_t>(count), false);
  if (gap != seen.begin() + static_cast<std::ptrdiff_t>(count)) {
    fail<IoError>("{}: rank {} is missing among {} tokens; the file is cut or damaged, download it again",
                  path, gap - seen.begin(), count);
  }
  spec.tokens.resize(count);
  check_distinct(spec, count);
  spec.special.assign(count, false);
  for (std::string& name : special_names(variant)) {
    spec.tokens.push_back(std::move(name));
    spec.special.push_back(true);
  }
  check_all_bytes_present(spec);
  return spec;
}

}  // namespace caravan
