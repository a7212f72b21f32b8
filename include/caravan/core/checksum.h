// 64-bit checksums against accidents (a flipped bit, a file cut short, bytes of another file), not against
// forgery: XXH64 with seed 0, as in Collet's xxHash specification 0.1.1. One core hashes faster than disks
// and most memory copies deliver, which CRC-32 of zlib does not.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace caravan {

/// The checksum of bytes that come in pieces, however they are cut.
class Checksum {
 public:
  Checksum();
  void add(std::span<const std::byte> bytes);
  /// Of everything added so far; more may be added afterwards.
  std::uint64_t value() const;

 private:
  static constexpr std::size_t kStripe = 32;

  void add_stripe(const std::byte* stripe);

  std::array<std::uint64_t, 4> lanes_;
  std::array<std::byte, kStripe> rest_{};  // less than one stripe, waiting for more
  std::size_t rest_bytes_ = 0;
  std::uint64_t total_bytes_ = 0;
};

std::uint64_t checksum_of(std::span<const std::byte> bytes);
std::uint64_t checksum_of(std::string_view text);

/// Sixteen lower-case hexadecimal digits, and back; null for anything else.
std::string checksum_text(std::uint64_t checksum);
std::optional<std::uint64_t> parse_checksum(std::string_view text);

}  // namespace caravan
