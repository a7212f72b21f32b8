#include "byte_pair_encoder.h"

#include <bit>
#include <queue>
#include <tuple>

#include "caravan/core/error.h"

namespace caravan {
namespace {

// Below this the plain scan wins: everything stays in the first-level cache and nothing is allocated.
constexpr std::size_t kScanLimit = 100;

std::vector<bool> ordinary_tokens(const TokenizerSpec& spec) {
  std::vector<bool> ordinary = spec.special;
  ordinary.flip();
  return ordinary;
}

std::uint8_t byte_at(std::string_view piece, std::size_t i) {
  return static_cast<std::uint8_t>(piece[i]);
}

/// The adjacent parts that begin at `begin` may merge; right is kNoToken for the last part.
struct Candidate {
  Merge merge;
  std::uint32_t begin = 0;
  std::int32_t left = kNoToken;
  std::int32_t right = kNoToken;
  bool operator<(const Candidate& other) const {  // a priority queue's top is the largest
    return std::tie(merge.rank, begin) > std::tie(other.merge.rank, other.begin);
  }
};

/// The parts of a long piece as a doubly linked list in place, each known by where it begins.
class LinkedParts {
 public:
  LinkedParts(std::string_view piece, const std::array<std::int32_t, 256>& byte_ids)
      : piece_(piece), size_(static_cast<std::uint32_t>(piece.size())), parts_(piece.size()) {
    for (std::uint32_t i = 0; i < size_; ++i) {
      parts_[i] = {i - 1, i + 1, byte_ids[byte_at(piece, i)]};
    }
  }
  Candidate candidate_at(std::uint32_t begin) const {
    const Part& left = parts_[begin];
    return {{}, begin, left.id, left.next == size_ ? kNoToken : parts_[left.next].id};
  }
  std::string_view joined_with_next(std::uint32_t begin) const {
    return piece_.substr(begin, parts_[parts_[begin].next].next - begin);
  }
  bool still_holds(const Candidate& candidate) const {
    const Part& left = parts_[candidate.begin];
    return left.id == candidate.left && left.next != size_ && parts_[left.next].id == candidate.right;
  }
  void merge(const Candidate& candidate) {
    Part& left = parts_[candidate.begin];
    Part& right = parts_[left.next];
    right.id = kNoToken;
    left.id = candidate.merge.id;
    left.next = right.next;
    if (left.next != size_) {
      parts_[left.next].previous = candidate.begin;
    }
  }
  std::uint32_t before(std::uint32_t begin) const { return parts_[begin].previous; }
  void append_ids(std::vector<std::int32_t>& ids) const {
    for (std::uint32_t i = 0; i < size_; i = parts_[i].next) {
      ids.push_back(parts_[i].id);
    }
  }

 private:
  struct Part {
    std::uint32_t previous;
    std::uint32_t next;  // where the next part begins, the piece's size for the last
    std::int32_t id;     // kNoToken: merged into an earlier part
  };
  std::string_view piece_;
  std::uint32_t size_;
  std::vector<Part> parts_;
};

}  // namespace

MergeTable::MergeTable(const std::vector<MergeRule>& rules) {
  slots_.resize(std::bit_ceil(2 * rules.size() + 2));
  mask_ = slots_.size() - 1;
  for (std::size_t rank = 0; rank < rules.size(); ++rank) {
    const MergeRule& rule = rules[rank];
    slots_[place_of(rule.left, rule.right)] = {
        rule.left, rule.right, {static_cast<std::int32_t>(rank), rule.merged}};
  }
}

std::size_t MergeTable::place_of(std::int32_t left, std::int32_t right) const {
  const std::uint64_t key = (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) |
                            static_cast<std::uint32_t>(right);
  const std::uint64_t hash = key * 0x9FB21C651E98DF25ULL;
  std::size_t at = (hash ^ (hash >> 32)) & mask_;
  while (slots_[at].left != kNoToken && (slots_[at].left != left || slots_[at].right != right)) {
    at = (at + 1) & mask_;
  }
  return at;
}

Merge MergeTable::find(std::int32_t left, std::int32_t right) const {
  return slots_[place_of(left, right)].merge;
}

BytePairEncoder::BytePairEncoder(const TokenizerSpec& spec)
    : vocabulary_(spec.tokens, ordinary_tokens(spec)),
      byte_pairs_(std::size_t{256} * 256, kNoToken),
      whole_piece_(spec.whole_piece),
      ids_are_ranks_(!spec.merges.has_value()),
      merges_(spec.merges.value_or(std::vector<MergeRule>{})) {
  for (std::size_t first = 0; first < 256; ++first) {
    std::array<char, 2> bytes{static_cast<char>(first), 0};
    byte_ids_[first] = vocabulary_.find({bytes.data(), 1});
    CARAVAN_CHECK(byte_ids_[first] != kNoToken, "byte {} is not a token", first);
    for (std::size_t second = 0; second < 256; ++second) {
      bytes[1] = static_cast<char>(second);
      byte_pairs_[first * 256 + second] = vocabulary_.find({bytes.data(), 2});
    }
  }
}

Merge BytePairEncoder::merge_of(std::int32_t left, std::int32_t right, std::string_view joined) const {
  if (!ids_are_ranks_) {
    return merges_.find(left, right);
  }
  const std::int32_t id = joined.size() == 2
                              ? byte_pairs_[std::size_t{byte_at(joined, 0)} * 256 + byte_at(joined, 1)]
                              : vocabulary_.find(joined);
  return id == kNoToken ? Merge{} : Merge{id, id};
}

void BytePairEncoder::append(std::string_view piece, std::vector<std::int32_t>& ids) const {
  if (piece.size() == 1) {
    ids.push_back(byte_ids_[byte_at(piece, 0)]);
    return;
  }
  if (whole_piece_) {
    if (const std::int32_t id = vocabulary_.find(piece); id != kNoToken) {
      ids.push_back(id);
      return;
    }
  }
  if (piece.size() < kScanLimit) {
    append_by_scan(piece, ids);
  } else {
    append_by_heap(piece, ids);
  }
}

void BytePairEncoder::append_by_scan(std::string_view piece, std::vector<std::int32_t>& ids) const {
  struct Part {
    std::size_t begin = 0;
    std::int32_t id = 0;
    Merge with_next;
  };
  std::array<Part, kScanLimit + 1> parts;  // the last one marks the end
  std::size_t count = piece.size();
  for (std::size_t i = 0; i < count; ++i) {
    parts[i] = {i, byte_ids_[byte_at(piece, i)], {}};
  }
  parts[count] = {piece.size(), kNoToken, {}};
  const auto look_up = [&](std::size_t i) {
    if (i + 1 < count) {
      const std::size_t begin = parts[i].begin;
      parts[i].with_next =
          merge_of(parts[i].id, parts[i + 1].id, piece.substr(begin, parts[i + 2].begin - begin));
    } else {
      parts[i].with_next = {};
    }
  };
  for (std::size_t i = 0; i < count; ++i) {
    look_up(i);
  }
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i) {
      if (parts[i].with_next.rank < parts[best].with_next.rank) {
        best = i;
      }
    }
    if (parts[best].with_next.rank == Merge::kNever) {
      break;
    }
    parts[best].id = parts[best].with_next.id;
    for (std::size_t i = best + 1; i < count; ++i) {
      parts[i] = parts[i + 1];
    }
    --count;
    look_up(best);
    if (best > 0) {
      look_up(best - 1);
    }
  }
  for (std::size_t i = 0; i < count; ++i) {
    ids.push_back(parts[i].id);
  }
}

void BytePairEncoder::append_by_heap(std::string_view piece, std::vector<std::int32_t>& ids) const {
  CARAVAN_CHECK(piece.size() < std::numeric_limits<std::uint32_t>::max(), "a piece of {} bytes",
                piece.size());
  LinkedParts parts(piece, byte_ids_);
  std::vector<Candidate> candidates;
  candidates.reserve(piece.size());
  const auto look_up = [&](std::uint32_t begin) {
    Candidate candidate = parts.candidate_at(begin);
    if (candidate.right != kNoToken) {
      candidate.merge = merge_of(candidate.left, candidate.right, parts.joined_with_next(begin));
    }
    return candidate;
  };
  for (std::uint32_t i = 0; i < piece.size(); ++i) {
    if (const Candidate candidate = look_up(i); candidate.merge.rank != Merge::kNever) {
      candidates.push_back(candidate);
    }
  }
  std::priority_queue<Candidate> queue(std::less<Candidate>(), std::move(candidates));
  const auto push = [&](std::uint32_t begin) {
    if (const Candidate candidate = look_up(begin); candidate.merge.rank != Merge::kNever) {
      queue.push(candidate);
    }
  };
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    if (!parts.still_holds(top)) {
      continue;  // a neighbour has merged since
    }
    parts.merge(top);
    push(top.begin);
    if (top.begin > 0) {
      push(parts.before(top.begin));
    }
  }
  parts.append_ids(ids);
}

}  // namespace caravan
