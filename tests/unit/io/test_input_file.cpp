#include "caravan/io/input_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "caravan/core/error.h"
#include "support/temporary_folder.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kPages = 512;

std::string pattern() {
  std::string text(kPages * kPage, '\0');
  for (std::size_t i = 0; i < text.size(); ++i) {
    text[i] = static_cast<char>(i * 7 + i / kPage);
  }
  return text;
}

/// A file whose pages are in the page cache or not, as the test wants.
class CachedFile {
 public:
  explicit CachedFile(const std::string& path) : descriptor_(::open(path.c_str(), O_RDONLY)) {
    REQUIRE(descriptor_ >= 0);
    memory_ = ::mmap(nullptr, kPages * kPage, PROT_READ, MAP_SHARED, descriptor_, 0);
    REQUIRE(memory_ != MAP_FAILED);
  }
  ~CachedFile() {
    ::munmap(memory_, kPages * kPage);
    ::close(descriptor_);
  }
  CachedFile(const CachedFile&) = delete;
  CachedFile& operator=(const CachedFile&) = delete;
  CachedFile(CachedFile&&) = delete;
  CachedFile& operator=(CachedFile&&) = delete;

  void drop() const {
    ::fsync(descriptor_);
    ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_DONTNEED);
  }
  bool says_what_is_absent() const {
    std::byte byte{};
    const iovec one{&byte, 1};
    return ::preadv2(descriptor_, &one, 1, 0, RWF_NOWAIT) < 0 && errno == EAGAIN;
  }
  std::size_t cached_pages() const {
    std::vector<unsigned char> in_core(kPages);
    REQUIRE(::mincore(memory_, kPages * kPage, in_core.data()) == 0);
    std::size_t count = 0;
    for (const unsigned char flags : in_core) {
      count += flags & 1U;
    }
    return count;
  }

 private:
  int descriptor_;
  void* memory_ = nullptr;
};

}  // namespace

TEST_CASE("bytes read alone are those of the file; what was cached stays, what was not does not", "[io]") {
  const TemporaryFolder folder;
  const std::string text = pattern();
  const std::string path = folder.write("file", text);
  const InputFile file(path);
  const CachedFile cache(path);
  // Inside a page, over the edge of two, at the end of the file.
  for (const std::size_t at : {100 * kPage + 17, 200 * kPage - 11, text.size() - 30}) {
    CAPTURE(at);
    std::array<std::byte, 30> bytes{};
    const auto read = [&] {
      bytes = {};
      file.read_alone(static_cast<std::int64_t>(at), bytes);
      CHECK(std::memcmp(bytes.data(), text.data() + at, bytes.size()) == 0);
    };
    cache.drop();
    const bool is_said = cache.says_what_is_absent();  // reads
    cache.drop();
    if (is_said && cache.cached_pages() == 0) {
      read();
      CHECK(cache.cached_pages() == 0);
    } else {
      WARN("only what is cached is tested: the file system lives in memory, or does not say what is absent");
    }
    std::vector<std::byte> all(text.size());
    file.read_at(0, all);
    REQUIRE(cache.cached_pages() == kPages);
    read();
    CHECK(cache.cached_pages() == kPages);
  }
}

TEST_CASE("bytes outside a file are refused however they are read", "[io]") {
  const TemporaryFolder folder;
  const InputFile file(folder.write("file", "0123456789"));
  std::array<std::byte, 4> bytes{};
  for (const std::int64_t at : {std::int64_t{7}, std::int64_t{-1}, std::int64_t{1} << 62U}) {
    CAPTURE(at);
    CHECK_THROWS_AS(file.read_at(at, bytes), IoError);
    CHECK_THROWS_AS(file.read_alone(at, bytes), IoError);
  }
  CHECK_NOTHROW(file.read_alone(6, bytes));
}
