#include "caravan/core/checksum.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <utility>
#include <vector>

using namespace caravan;

namespace {

std::vector<std::byte> sample_bytes(std::size_t count) {
  std::vector<std::byte> bytes(count);
  for (std::size_t i = 0; i < count; ++i) {
    bytes[i] = static_cast<std::byte>((i * 7 + i / 256 * 13 + 1) % 256);
  }
  return bytes;
}

}  // namespace

TEST_CASE("checksums are those of the xxhash library", "[io][checksum]") {
  // python3 -c 'import xxhash; print(xxhash.xxh64(bytes).hexdigest())', xxhash 3.5
  const std::vector<std::pair<std::size_t, std::string>> known = {
      {0, "ef46db3751d8e999"},   {1, "8a4127811b21e730"},   {3, "b6e6c910c2fd373a"},
      {4, "22eda2cf6af4c124"},   {7, "34084d91a233a751"},   {8, "c6f1803a5e0b3222"},
      {12, "9178b724dce384c0"},  {31, "6ab1c40e29f50073"},  {32, "5a0756fbe9ecd3d1"},
      {33, "dc50cdc37bb9c183"},  {63, "10dd94885c71894a"},  {64, "90083da9cdb9d795"},
      {100, "d248bfc5208b0b16"}, {1000, "87345ddb5a6099bc"}};
  for (const auto& [count, text] : known) {
    CAPTURE(count);
    CHECK(checksum_text(checksum_of(sample_bytes(count))) == text);
  }
  CHECK(checksum_text(checksum_of("Caravan")) == "4dd5210f810e957d");
}

TEST_CASE("a checksum does not depend on how the bytes are cut", "[io][checksum]") {
  const std::vector<std::byte> bytes = sample_bytes(1000);
  for (const std::size_t step : {1U, 5U, 31U, 32U, 33U, 100U, 999U}) {
    CAPTURE(step);
    Checksum checksum;
    for (std::size_t at = 0; at < bytes.size(); at += step) {
      checksum.add(std::span(bytes).subspan(at, std::min(step, bytes.size() - at)));
    }
    CHECK(checksum.value() == checksum_of(bytes));
    CHECK(checksum.value() == checksum_of(bytes));  // asking changes nothing
  }
}

TEST_CASE("a checksum is read back from its sixteen digits and nothing else", "[io][checksum]") {
  CHECK(parse_checksum("00ff00ff00ff00ff") == 0x00ff00ff00ff00ffU);
  CHECK(parse_checksum(checksum_text(~0ULL)) == ~0ULL);
  for (const char* wrong : {"", "0", "00FF00FF00FF00FF", "00ff00ff00ff00f", "00ff00ff00ff00ff0",
                            "0x00ff00ff00ff00", "00ff00ff00ff00f ", "-0ff00ff00ff00ff"}) {
    CAPTURE(wrong);
    CHECK_FALSE(parse_checksum(wrong).has_value());
  }
}
