#include "support/tokenizer_files.h"

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "support/shared_files.h"

namespace caravan::test {
namespace {

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t bits = 0;
    for (std::size_t k = 0; k < 3; ++k) {
      bits = (bits << 8) | (i + k < bytes.size() ? static_cast<std::uint8_t>(bytes[i + k]) : 0U);
    }
    for (std::size_t k = 0; k < 4; ++k) {
      text += i + k <= bytes.size() ? kDigits[(bits >> (18 - 6 * k)) & 63U] : '=';
    }
  }
  return text;
}

}  // namespace

std::string tokenizer_model_text(const std::vector<std::string>& tokens) {
  std::string text;
  for (std::size_t rank = 0; rank < tokens.size(); ++rank) {
    text += base64(tokens[rank]) + " " + std::to_string(rank) + "\n";
  }
  return text;
}

std::vector<std::string> byte_tokens_and(const std::vector<std::string>& more) {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) {
    tokens.emplace_back(1, static_cast<char>(byte));
  }
  tokens.insert(tokens.end(), more.begin(), more.end());
  return tokens;
}

std::string shared_file_or_skip(std::string_view relative) {
  const char* shared = std::getenv("CARAVAN_SHARED");
  const char* source = std::getenv("CARAVAN_SOURCE_DIR");
  const std::filesystem::path root =
      shared != nullptr ? std::filesystem::path(shared)
                        : std::filesystem::path(source != nullptr ? source : ".") / ".." / "shared";
  const std::filesystem::path file = root / relative;
  if (std::filesystem::exists(file)) {
    return file.string();
  }
  something_was_skipped() = true;
  std::cout << "SKIPPED: " << file.string() << " is absent (set CARAVAN_SHARED)\n";
  return {};
}

}  // namespace caravan::test
