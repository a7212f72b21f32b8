// Little-endian numbers in byte strings, for the file formats that have them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "caravan/core/error.h"

namespace caravan {

/// The unsigned number at `offset`; the caller has checked nothing: a range outside `bytes` is an
/// InternalError.
template <class T>
T load_little_endian(std::span<const std::byte> bytes, std::size_t offset) {
  static_assert(std::is_unsigned_v<T>);
  CARAVAN_CHECK(offset <= bytes.size() && sizeof(T) <= bytes.size() - offset, "{} bytes at {} of {}",
                sizeof(T), offset, bytes.size());
  T value = 0;
  for (std::size_t i = sizeof(T); i-- > 0;) {
    value = static_cast<T>(static_cast<std::uint64_t>(value) << 8U |
                           static_cast<std::uint64_t>(bytes[offset + i]));
  }
  return value;
}

/// Appends to any container of bytes or chars.
template <class T, class Container>
void append_little_endian(Container& to, T value) {
  static_assert(std::is_unsigned_v<T>);
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    to.push_back(
        static_cast<typename Container::value_type>(static_cast<std::uint64_t>(value) >> (8 * i) & 0xFFU));
  }
}

}  // namespace caravan
