// Both kinds of tokenizer file, by content as Tokenizer::load recognises them.
#include <array>
#include <numeric>
#include <optional>
#include <vector>

#include "caravan/data/tokenizer.h"
#include "fuzz/fuzz_entries.h"

namespace caravan::fuzz {
namespace {

constexpr std::array<std::string_view, 5> kTexts = {
    "", "Hello, world's 12345 numbers!\n\n  next\tline ",
    "na\xC3\xAFve \xE6\x97\xA5\xE6\x9C\xAC \xF0\x9F\x98\x80",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    "aaaaaaaaaa"
    "bababababababababa",
    "<|begin_of_text|> is ordinary text here"};

void check_ids(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::int32_t> ids;
  // A foreign file's pattern may need more work than is allowed to it.
  if (accepted([&] { ids = tokenizer.encode(text); })) {
    require(tokenizer.decode(ids) == text, "text survives encoding and decoding");
  }
}

}  // namespace

void tokenizer_model(Bytes input) {
  std::optional<Tokenizer> tokenizer;
  if (!accepted([&] { tokenizer = Tokenizer::load(file_of(input), TokenizerVariant::kLlama31); })) {
    return;
  }
  for (const std::string_view text : kTexts) {
    check_ids(*tokenizer, text);
  }
  std::vector<std::int32_t> all(static_cast<std::size_t>(tokenizer->vocab_size()));
  std::iota(all.begin(), all.end(), 0);
  tokenizer->decode(all);
  for (const std::int32_t id : tokenizer->stop_ids()) {
    require(tokenizer->is_special(id), "generation stops at special tokens only");
  }
}

void tokenizer_json(Bytes input) {
  tokenizer_model(input);
}

}  // namespace caravan::fuzz
