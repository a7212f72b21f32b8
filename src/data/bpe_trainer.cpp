#include "caravan/data/bpe_trainer.h"

#include <algorithm>
#include <array>
#include <limits>
#include <queue>

#include "byte_alphabet.h"
#include "caravan/core/error.h"

namespace caravan {
namespace {

constexpr std::size_t kMaxTrainedTokenBytes = 256;

using Pair = std::pair<std::int32_t, std::int32_t>;

struct PairHash {
  std::size_t operator()(const Pair& pair) const {
    const auto left = static_cast<std::uint64_t>(static_cast<std::uint32_t>(pair.first));
    const auto right = static_cast<std::uint64_t>(static_cast<std::uint32_t>(pair.second));
    const std::uint64_t hash = ((left << 32) | right) * 0x9FB21C651E98DF25ULL;
    return hash ^ (hash >> 32);
  }
};

/// One distinct piece, as the tokens it consists of so far.
struct Word {
  std::vector<std::int32_t> symbols;
  std::int64_t count;
};

struct PairUse {
  std::int64_t count = 0;
  std::vector<std::uint32_t> words;  // where it occurs, or has occurred before another merge
};

/// The queue may hold outdated counts; they are never too small, so that the true maximum is never missed.
struct QueuedPair {
  std::int64_t count;
  Pair pair;
  bool operator<(const QueuedPair& other) const {  // the top has the highest count, then the smallest ids
    return count != other.count ? count < other.count : pair > other.pair;
  }
};

class Trainer {
 public:
  explicit Trainer(const PieceCounts& pieces) {
    std::array<std::int32_t, 256> id_of_byte{};
    for (const std::uint8_t byte : bytes_in_alphabet_order()) {
      id_of_byte[byte] = add_token(std::string(1, static_cast<char>(byte)));
    }
    for (const auto& [piece, count] : pieces) {
      Word word{{}, count};
      for (const char c : piece) {
        word.symbols.push_back(id_of_byte[static_cast<std::uint8_t>(c)]);
      }
      if (word.symbols.size() > 1) {
        words_.push_back(std::move(word));
      }
    }
    CARAVAN_CHECK(words_.size() < std::numeric_limits<std::uint32_t>::max(), "{} pieces", words_.size());
    for (std::uint32_t w = 0; w < words_.size(); ++w) {
      const Word& word = words_[w];
      for (std::size_t i = 0; i + 1 < word.symbols.size(); ++i) {
        increase({word.symbols[i], word.symbols[i + 1]}, w);
      }
    }
    queue_increased();
  }

  TrainedBpe run(std::int64_t max_tokens, std::int64_t min_frequency) {
    while (static_cast<std::int64_t>(trained_.tokens.size()) < max_tokens && !queue_.empty()) {
      const QueuedPair top = queue_.top();
      queue_.pop();
      const auto use = uses_.find(top.pair);
      if (use == uses_.end()) {
        continue;
      }
      if (use->second.count != top.count) {
        queue_.push({use->second.count, top.pair});
        continue;
      }
      if (top.count < std::max<std::int64_t>(min_frequency, 1)) {
        break;
      }
      merge(top.pair);
    }
    return std::move(trained_);
  }

 private:
  std::int32_t add_token(std::string bytes) {
    const auto next = static_cast<std::int32_t>(trained_.tokens.size());
    const auto [found, is_new] = id_of_token_.emplace(std::move(bytes), next);
    if (is_new) {
      trained_.tokens.push_back(found->first);
    }
    return found->second;
  }

  void increase(const Pair& pair, std::uint32_t w) {
    PairUse& use = uses_[pair];
    use.count += words_[w].count;
    if (use.words.empty() || use.words.back() != w) {
      use.words.push_back(w);
    }
    increased_.push_back(pair);
  }

  void decrease(const Pair& pair, std::uint32_t w) {
    // The pair being merged is no longer there: it disappears from all words.
    if (const auto use = uses_.find(pair); use != uses_.end()) {
      use->second.count -= words_[w].count;
    }
  }

  void queue_increased() {
    std::sort(increased_.begin(), increased_.end());
    increased_.erase(std::unique(increased_.begin(), increased_.end()), increased_.end());
    for (const Pair& pair : increased_) {
      if (const std::int64_t count = uses_[pair].count; count > 0) {
        queue_.push({count, pair});
      }
    }
    increased_.clear();
  }

  void merge(const Pair& pair) {
    const auto node = uses_.extract(pair);
    std::string joined = trained_.tokens[static_cast<std::size_t>(pair.first)] +
                         trained_.tokens[static_cast<std::size_t>(pair.second)];
    if (joined.size() > kMaxTrainedTokenBytes) {
      return;
    }
    // Two merges may spell the same token ("a" + "bc", "ab" + "c"): it keeps its id.
    const std::int32_t merged = add_token(std::move(joined));
    trained_.merges.push_back(pair);
    for (const std::uint32_t w : node.mapped().words) {
      merge_in_word(w, pair, merged);
    }
    queue_increased();
  }

  /// Replaces every occurrence from the left and keeps the counts of all neighbouring pairs exact.
  void merge_in_word(std::uint32_t w, const Pair& pair, std::int32_t merged) {
    std::vector<std::int32_t>& symbols = words_[w].symbols;
    std::size_t kept = 0;
    for (std::size_t i = 0; i < symbols.size(); ++kept) {
      if (i + 1 == symbols.size() || symbols[i] != pair.first || symbols[i + 1] != pair.second) {
        symbols[kept] = symbols[i++];
        continue;
      }
      if (kept > 0) {
        decrease({symbols[kept - 1], pair.first}, w);
        increase({symbols[kept - 1], merged}, w);
      }
      if (i + 2 < symbols.size()) {
        decrease({pair.second, symbols[i + 2]}, w);
        increase({merged, symbols[i + 2]}, w);
      }
      symbols[kept] = merged;
      i += 2;
    }
    symbols.resize(kept);
  }

  TrainedBpe trained_;
  std::unordered_map<std::string, std::int32_t> id_of_token_;
  std::vector<Word> words_;
  std::unordered_map<Pair, PairUse, PairHash> uses_;
  std::priority_queue<QueuedPair> queue_;
  std::vector<Pair> increased_;  // since the queue was last brought up to date
};

}  // namespace

TrainedBpe train_bpe(const PieceCounts& pieces, std::int64_t max_tokens, std::int64_t min_frequency) {
  return Trainer(pieces).run(max_tokens, min_frequency);
}

}  // namespace caravan
