// Token bytes ↔ ids in one flat table; lookups by string_view allocate nothing.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace caravan {

/// No token, no merge.
inline constexpr std::int32_t kNoToken = -1;

class Vocabulary {
 public:
  /// `tokens[id]` are the bytes of each id; `searchable[id]` says whether find() may return it (special
  /// tokens and repetitions must not be). Searchable tokens must differ and be non-empty.
  Vocabulary(const std::vector<std::string>& tokens, const std::vector<bool>& searchable);

  std::int32_t find(std::string_view bytes) const {
    if (bytes.size() > max_token_bytes_) {
      return kNoToken;
    }
    const std::uint64_t hash = hash_bytes(bytes);
    const auto tag = static_cast<std::uint32_t>(hash >> 32);
    for (std::size_t at = hash & mask_;; at = (at + 1) & mask_) {
      const Slot slot = slots_[at];
      if (slot.id == kNoToken || (slot.tag == tag && token(slot.id) == bytes)) {
        return slot.id;
      }
    }
  }

  /// `id` must be in range.
  std::string_view token(std::int32_t id) const {
    const auto i = static_cast<std::size_t>(id);
    return {bytes_.data() + begins_[i], begins_[i + 1] - begins_[i]};
  }
  std::int64_t size() const { return static_cast<std::int64_t>(begins_.size()) - 1; }
  std::size_t max_token_bytes() const { return max_token_bytes_; }

 private:
  struct Slot {
    std::uint32_t tag;
    std::int32_t id;
  };
  static std::uint64_t hash_bytes(std::string_view bytes);

  std::string bytes_;
  std::vector<std::size_t> begins_;  // [size + 1]
  std::vector<Slot> slots_;          // open addressing, at most half full
  std::size_t mask_ = 0;
  std::size_t max_token_bytes_ = 0;  // of the searchable tokens
};

}  // namespace caravan
