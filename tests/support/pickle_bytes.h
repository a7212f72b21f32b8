// Pickles of protocol 2 put together by hand.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace caravan::test {

/// A string literal with its zeros: bytes("a\0b").
template <std::size_t N>
std::string bytes(const char (&literal)[N]) {
  return {literal, N - 1};
}

inline std::string pickle_text(std::string_view text) {
  std::string out = "X";
  for (int i = 0; i < 4; ++i) {
    out.push_back(static_cast<char>(text.size() >> (8 * i) & 0xFFU));
  }
  return out += text;
}

inline std::string pickle_global(std::string_view module, std::string_view name) {
  return std::string("c").append(module).append("\n").append(name).append("\n");
}

/// BININT, or LONG1 of eight bytes.
inline std::string pickle_int(std::int64_t value) {
  const bool is_short = value >= INT32_MIN && value <= INT32_MAX;
  std::string out = is_short ? "J" : "\x8A\x08";
  for (int i = 0; i < (is_short ? 4 : 8); ++i) {
    out.push_back(static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i) & 0xFFU));
  }
  return out;
}

inline std::string pickle_ints(const std::vector<std::int64_t>& values) {
  std::string out = "(";
  for (const std::int64_t value : values) {
    out += pickle_int(value);
  }
  return out + "t";
}

/// The parts of one tensor; a test changes one of them.
struct TensorPickle {
  std::string tag = pickle_text("storage");
  std::string storage_class = pickle_global("torch", "FloatStorage");
  std::string key = pickle_text("0");
  std::string location = pickle_text("cpu");
  std::string numel = pickle_int(8);
  std::string offset = pickle_int(0);
  std::string size = pickle_ints({2, 4});
  std::string stride = pickle_ints({4, 1});
  std::string requires_grad = "\x89";
  std::string hooks = pickle_global("collections", "OrderedDict") + ")R";
  std::string rebuild = pickle_global("torch._utils", "_rebuild_tensor_v2");

  std::string storage() const {
    return std::string("(").append(tag) + storage_class + key + location + numel + "tQ";
  }
  std::string str() const {
    return rebuild + "(" + storage() + offset + size + stride + requires_grad + hooks + "tR";
  }
};

/// {name: value} with the header and STOP.
inline std::string pickle_dict(std::string_view name, const std::string& value) {
  return std::string("\x80\x02}").append(pickle_text(name)) + value + "s.";
}

}  // namespace caravan::test
