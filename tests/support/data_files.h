// Data files for tests: a folder that goes with the test, text and gzip content, and an encoder without
// vocabulary.
#pragma once

#include <zlib.h>

#include <string>
#include <string_view>
#include <vector>

#include "caravan/core/error.h"
#include "caravan/data/text_encoder.h"
#include "support/temporary_folder.h"

namespace caravan::test {

/// One gzip member with this content.
inline std::string gzip(std::string_view content) {
  z_stream stream{};
  CARAVAN_CHECK(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK, "deflateInit2");
  std::string out(deflateBound(&stream, content.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(content.data()));
  stream.avail_in = static_cast<uInt>(content.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  CARAVAN_CHECK(deflate(&stream, Z_FINISH) == Z_STREAM_END, "deflate");
  out.resize(out.size() - stream.avail_out);
  deflateEnd(&stream);
  return out;
}

/// Begin token 1, one id per byte (10 + its value), end token 2.
class ByteEncoder : public TextEncoder {
 public:
  std::vector<std::int32_t> encode_document(std::string_view text) const override {
    std::vector<std::int32_t> ids = {1};
    for (const char c : text) {
      ids.push_back(10 + static_cast<unsigned char>(c));
    }
    ids.push_back(2);
    return ids;
  }
};

/// What `body` throws as E, or "" when it does not throw that.
template <class E, class Body>
std::string message_of(const Body& body) {
  try {
    body();
  } catch (const E& error) {
    return error.what();
  }
  return {};
}

}  // namespace caravan::test
