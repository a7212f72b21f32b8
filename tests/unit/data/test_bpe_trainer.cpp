#include "caravan/data/bpe_trainer.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>
#include <iterator>
#include <map>
#include <random>

#include "caravan/core/error.h"
#include "caravan/data/tokenizer.h"
#include "support/tokenizer_files.h"

using namespace caravan;
using caravan::test::TemporaryFolder;

namespace {

/// Counts all pairs anew for every merge, on strings.
std::vector<std::string> tokens_by_definition(const PieceCounts& pieces, std::vector<std::string> tokens,
                                              std::size_t max_tokens, std::int64_t min_frequency) {
  std::vector<std::pair<std::vector<std::string>, std::int64_t>> words;
  for (const auto& [piece, count] : pieces) {
    words.emplace_back();
    words.back().second = count;
    for (const char c : piece) {
      words.back().first.emplace_back(1, c);
    }
  }
  const auto id = [&](const std::string& token) {
    return std::find(tokens.begin(), tokens.end(), token) - tokens.begin();
  };
  while (tokens.size() < max_tokens) {
    std::map<std::pair<std::ptrdiff_t, std::ptrdiff_t>, std::int64_t> counts;
    for (const auto& [word, count] : words) {
      for (std::size_t i = 0; i + 1 < word.size(); ++i) {
        counts[{id(word[i]), id(word[i + 1])}] += count;
      }
    }
    const auto best = std::max_element(counts.begin(), counts.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    if (best == counts.end() || best->second < min_frequency) {
      break;
    }
    const std::string left = tokens[static_cast<std::size_t>(best->first.first)];
    const std::string right = tokens[static_cast<std::size_t>(best->first.second)];
    if (std::find(tokens.begin(), tokens.end(), left + right) == tokens.end()) {
      tokens.push_back(left + right);
    }
    for (auto& [word, count] : words) {
      for (std::size_t i = 0; i + 1 < word.size(); ++i) {
        if (word[i] == left && word[i + 1] == right) {
          word[i] += right;
          word.erase(word.begin() + static_cast<std::ptrdiff_t>(i) + 1);
        }
      }
    }
  }
  return tokens;
}

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

const std::string kCorpus =
    "the cat sat on the mat\nthe dog sat on the log\n\nthe naïve café's cat, 123 and 4567!\n";

}  // namespace

TEST_CASE("trained tokens equal those of the definition", "[data][bpe_trainer]") {
  std::mt19937 random(5);
  std::uniform_int_distribution<int> letter('a', 'd');
  std::uniform_int_distribution<std::size_t> length(1, 12);
  std::uniform_int_distribution<std::int64_t> count(1, 9);
  for (int repetition = 0; repetition < 20; ++repetition) {
    PieceCounts pieces = {{std::string(11, 'a'), 7}, {"abababab", 5}};
    for (int p = 0; p < 40; ++p) {
      std::string piece;
      for (std::size_t n = length(random); piece.size() < n;) {
        piece += static_cast<char>(letter(random));
      }
      pieces[piece] = count(random);
    }
    const TrainedBpe trained = train_bpe(pieces, 300, 2);
    const std::vector<std::string> bytes(trained.tokens.begin(), trained.tokens.begin() + 256);
    CHECK(trained.tokens == tokens_by_definition(pieces, bytes, 300, 2));
    CHECK(trained.merges.size() >= trained.tokens.size() - 256);
  }
}

TEST_CASE("pairs below the minimum frequency and tokens above 256 bytes are not made",
          "[data][bpe_trainer]") {
  CHECK(train_bpe({{"xy", 3}, {"zw", 2}}, 1000, 3).tokens.size() == 257);
  CHECK(train_bpe({{"xy", 3}, {"zw", 2}}, 1000, 2).tokens.size() == 258);
  CHECK(train_bpe({}, 1000, 1).tokens.size() == 256);
  for (const std::string& token : train_bpe({{std::string(3000, 'a'), 2}}, 1000, 2).tokens) {
    CHECK(token.size() <= 256);
  }
}

TEST_CASE("a trained tokenizer loads, encodes and decodes its own and other text", "[data][bpe_trainer]") {
  const TemporaryFolder folder;
  const std::string out = folder.path("tokenizer.json");
  const auto report =
      train_tokenizer({folder.write("corpus.txt", kCorpus)}, {.vocab_size = 280, .min_frequency = 1}, out);
  CHECK(report.samples == 3);
  CHECK(report.vocab_size == 280);
  const Tokenizer tokenizer = Tokenizer::load(out);
  CHECK(tokenizer.vocab_size() == 280);
  CHECK(tokenizer.bos_id() == 277);
  CHECK(tokenizer.eos_id() == 278);
  CHECK(tokenizer.default_pad_id() == 279);
  CHECK(tokenizer.encode("the the").size() == 2);
  for (const std::string text : {"the cat", "Übermut! \U0001F600\n", "<|end_of_text|>", ""}) {
    CHECK(tokenizer.decode(tokenizer.encode(text)) == text);
  }
}

TEST_CASE("the same corpus gives the same file, whatever its form", "[data][bpe_trainer]") {
  const TemporaryFolder folder;
  const BpeTrainerOptions options{.vocab_size = 290, .min_frequency = 1};
  train_tokenizer({folder.write("a.txt", "one two\ntwo three\n")}, options, folder.path("a.json"));
  train_tokenizer({folder.write("b.jsonl", "{\"text\": \"two three\"}\n{\"text\": \"one two\"}\n")}, options,
                  folder.path("b.json"));
  CHECK(read(folder.path("a.json")) == read(folder.path("b.json")));
}

TEST_CASE("a corpus too small for the vocabulary gives a smaller one and says so", "[data][bpe_trainer]") {
  const TemporaryFolder folder;
  const auto report = train_tokenizer({folder.write("corpus.txt", "abc abc\n")}, {.vocab_size = 1000},
                                      folder.path("tokenizer.json"));
  CHECK(report.vocab_size == Tokenizer::load(folder.path("tokenizer.json")).vocab_size());
  CHECK(report.vocab_size < 265);
}

TEST_CASE("impossible training options and corpora are errors", "[data][bpe_trainer]") {
  const TemporaryFolder folder;
  const std::string corpus = folder.write("corpus.txt", kCorpus);
  const std::string out = folder.path("tokenizer.json");
  CHECK_THROWS_WITH(train_tokenizer({corpus}, {.vocab_size = 258}, out), Catch::Contains("258"));
  CHECK_THROWS_AS(train_tokenizer({corpus}, {.min_frequency = 0}, out), ConfigError);
  CHECK_THROWS_AS(train_tokenizer({folder.path("absent.txt")}, {}, out), IoError);
  CHECK_THROWS_AS(train_tokenizer({folder.write("ids.jsonl", "{\"ids\": [1, 2]}\n")}, {}, out), IoError);
  CHECK_THROWS_AS(train_tokenizer({corpus}, {}, folder.path("absent/tokenizer.json")), IoError);
}
