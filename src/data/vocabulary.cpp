#include "vocabulary.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace caravan {
namespace {

std::uint64_t load_up_to_8(const char* data, std::size_t count) {
  std::uint64_t word = 0;
  std::memcpy(&word, data, count);
  return word;
}

std::uint64_t mix(std::uint64_t hash) {
  hash *= 0x9FB21C651E98DF25ULL;
  return hash ^ (hash >> 32);
}

}  // namespace

std::uint64_t Vocabulary::hash_bytes(std::string_view bytes) {
  std::uint64_t hash = 0x9E3779B97F4A7C15ULL * (bytes.size() + 1);
  const char* data = bytes.data();
  std::size_t left = bytes.size();
  for (; left > 8; left -= 8, data += 8) {
    hash = mix(hash ^ load_up_to_8(data, 8));
  }
  return mix(mix(hash ^ load_up_to_8(data, left)));
}

Vocabulary::Vocabulary(const std::vector<std::string>& tokens, const std::vector<bool>& searchable) {
  begins_.reserve(tokens.size() + 1);
  begins_.push_back(0);
  for (const std::string& token : tokens) {
    bytes_ += token;
    begins_.push_back(bytes_.size());
  }
  slots_.assign(std::bit_ceil(2 * tokens.size() + 2), Slot{0, kNoToken});
  mask_ = slots_.size() - 1;
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    if (!searchable[id]) {
      continue;
    }
    max_token_bytes_ = std::max(max_token_bytes_, tokens[id].size());
    const std::uint64_t hash = hash_bytes(tokens[id]);
    std::size_t at = hash & mask_;
    while (slots_[at].id != kNoToken) {
      at = (at + 1) & mask_;
    }
    slots_[at] = {static_cast<std::uint32_t>(hash >> 32), static_cast<std::int32_t>(id)};
  }
}

}  // namespace caravan
