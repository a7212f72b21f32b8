#include "caravan/io/output_file.h"

#include <sys/resource.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <filesystem>
#include <vector>

#include "caravan/core/error.h"
#include "support/data_files.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr std::size_t kLarge =
    (std::size_t{70} << 20U) + 12345;  // more than the writer's memory, no round number

std::string numbered_bytes(std::size_t count) {
  std::string text(count, '\0');
  for (std::size_t i = 0; i < count; ++i) {
    text[i] = static_cast<char>((i * 2654435761U) >> 13U);
  }
  return text;
}

/// Files of this process end at this size while it lives, like a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit now{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &now);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  void (*handler_)(int);
  rlimit before_{};
};

}  // namespace

TEST_CASE("a large file written in pieces of any size is the same file", "[io][output_file]") {
  const TemporaryFolder folder;
  std::string text = numbered_bytes(kLarge);
  for (const std::size_t piece : {std::size_t{1} << 20U, (std::size_t{3} << 20U) + 17, kLarge}) {
    OutputFile file(folder / "large");
    for (std::size_t at = 0; at < text.size(); at += piece) {
      file.write(std::string_view(text).substr(at, piece));
    }
    CHECK(file.position() == static_cast<std::int64_t>(kLarge));
    file.commit();
    CHECK(read_text(folder / "large") == text);
  }
}

TEST_CASE("bytes anywhere in a file are replaced before it appears", "[io][output_file]") {
  const TemporaryFolder folder;
  std::string text = numbered_bytes(kLarge);
  OutputFile file(folder / "large");
  file.write(text);
  for (const std::size_t at : {std::size_t{0}, std::size_t{30} << 20U, kLarge - 3}) {
    const std::string patch = "abc";
    file.overwrite(static_cast<std::int64_t>(at), std::as_bytes(std::span(patch)));
    text.replace(at, 3, patch);
  }
  CHECK_THROWS_AS(file.overwrite(kLarge - 1, std::as_bytes(std::span("ab", 2))), InternalError);
  file.commit();
  CHECK(read_text(folder / "large") == text);
}

TEST_CASE("a file left without commit leaves nothing, whatever was on its way", "[io][output_file]") {
  const TemporaryFolder folder;
  const std::string text = numbered_bytes(kLarge);
  {
    OutputFile file(folder / "large");
    file.write(text);
  }
  { const OutputFile empty(folder / "empty"); }
  CHECK(std::filesystem::is_empty(folder.path()));
}

TEST_CASE("what fails on the way to the disk is an error with path, place and reason", "[io][output_file]") {
  const TemporaryFolder folder;
  const std::string text = numbered_bytes(kLarge);
  const FileSizeLimit limit(std::size_t{20} << 20U);
  const std::string message = message_of<IoError>([&] {
    OutputFile file(folder / "large");
    file.write(text);
    file.commit();
  });
  CHECK_THAT(message, Catch::Contains("large: writing at byte 20971520 failed: ") &&
                          Catch::Contains("File too large"));
  CHECK(std::filesystem::is_empty(folder.path()));
}
