#include "caravan/data/line_source.h"

#include <catch2/catch.hpp>

#include "caravan/data/path_list.h"
#include "support/data_files.h"

using namespace caravan;
using caravan::test::gzip;
using caravan::test::message_of;
using caravan::test::TemporaryFolder;
using Catch::Matchers::Contains;

namespace {

std::vector<std::string> lines_of(const std::string& path, std::int64_t limit = kMaxLineBytes) {
  LineSource source(path, limit);
  std::vector<std::string> lines;
  std::string_view line;
  while (source.next(line)) {
    lines.emplace_back(line);
  }
  return lines;
}

}  // namespace

TEST_CASE("lines end with a line feed, with or without carriage return, or with the file", "[data][lines]") {
  const TemporaryFolder folder;
  const std::vector<std::string> wanted = {"one", "", "two\r", "three"};
  CHECK(lines_of(folder.write("a", "one\r\n\ntwo\r\r\nthree")) == wanted);
  CHECK(lines_of(folder.write("b", "one\n\r\ntwo\r\r\nthree\n")) == wanted);
  CHECK(lines_of(folder.write("empty", "")).empty());
}

TEST_CASE("a byte order mark is dropped at the beginning and nowhere else", "[data][lines]") {
  const TemporaryFolder folder;
  const std::string mark = "\xEF\xBB\xBF";
  CHECK(lines_of(folder.write("a", mark + "one\n" + mark + "two\n")) ==
        std::vector<std::string>{"one", mark + "two"});
}

TEST_CASE("NUL bytes do not end a line", "[data][lines]") {
  const TemporaryFolder folder;
  const std::string content("a\0b\nc\n", 6);
  CHECK(lines_of(folder.write("a", content)) == std::vector<std::string>{std::string("a\0b", 3), "c"});
}

TEST_CASE("gzip is known by its bytes, with one or several members and zero padding", "[data][lines]") {
  const TemporaryFolder folder;
  const std::vector<std::string> wanted = {"one", "two", "three"};
  CHECK(lines_of(folder.write("a.txt", gzip("one\ntwo\nthree\n"))) == wanted);
  CHECK(lines_of(folder.write("b.gz", gzip("one\nt") + gzip("") + gzip("wo\nthree"))) == wanted);
  CHECK(lines_of(folder.write("c.gz", gzip("one\ntwo\nthree\n") + std::string(700, '\0'))) == wanted);
  CHECK(lines_of(folder.write("d.gz", "one\ntwo\nthree\n")) == wanted);
}

TEST_CASE("a gzip file cut anywhere is an error that names it", "[data][lines]") {
  const TemporaryFolder folder;
  std::string content;
  for (int i = 0; i < 500; ++i) {
    content += "line " + std::to_string(i * i) + "\n";
  }
  const std::string whole = gzip(content);
  for (std::size_t length = 2; length < whole.size(); length += 37) {
    const std::string path = folder.write("cut.gz", whole.substr(0, length));
    const std::string message = message_of<IoError>([&] { lines_of(path); });
    CAPTURE(length);
    CHECK_THAT(message, Contains("cut.gz") && Contains("truncated"));
  }
  CHECK(lines_of(folder.write("cut.gz", whole)).size() == 500);
}

TEST_CASE("a damaged gzip file and garbage after one are errors", "[data][lines]") {
  const TemporaryFolder folder;
  std::string damaged = gzip(std::string(5000, 'x') + "\nand more\n");
  damaged[damaged.size() - 6] ^= 0x40;  // in the checksum
  CHECK_THAT(message_of<IoError>([&] { lines_of(folder.write("a.gz", damaged)); }),
             Contains("a.gz") && Contains("damaged"));
  CHECK_THAT(message_of<IoError>([&] { lines_of(folder.write("b.gz", gzip("one\n") + "garbage")); }),
             Contains("b.gz") && Contains("damaged"));
}

TEST_CASE("a line may have as many bytes as the limit and no more", "[data][lines]") {
  const TemporaryFolder folder;
  for (const std::int64_t limit : {1, 7, 300000}) {
    const std::string longest(static_cast<std::size_t>(limit), 'x');
    const std::string path = folder.write("a", "y\n" + longest + "\r\n" + longest + "\n" + longest);
    CAPTURE(limit);
    CHECK(lines_of(path, limit) == std::vector<std::string>{"y", longest, longest, longest});
    for (const char* end : {"", "\n", "\r\n"}) {
      const std::string above = folder.write("b", "y\n" + longest + "x" + end);
      CHECK_THAT(message_of<IoError>([&] { lines_of(above, limit); }),
                 Contains("b:2") && Contains(std::to_string(limit) + " bytes"));
    }
  }
}

TEST_CASE("an endless line in a small gzip file is refused at the limit", "[data][lines]") {
  const TemporaryFolder folder;
  const std::string path = folder.write("bomb.gz", gzip(std::string(std::size_t{64} << 20U, 'x')));
  CHECK_THAT(message_of<IoError>([&] { lines_of(path, 1 << 20); }), Contains("bomb.gz:1"));
}

TEST_CASE("long lines between short ones arrive whole", "[data][lines]") {
  const TemporaryFolder folder;
  std::vector<std::string> wanted;
  std::string content;
  for (int i = 0; i < 60; ++i) {
    const std::size_t length =
        i % 7 == 3 ? 3000000U + static_cast<std::size_t>(i) : static_cast<std::size_t>(i) * 331U;
    wanted.emplace_back(length, static_cast<char>('a' + i % 26));
    content += wanted.back() + "\n";
  }
  CHECK(lines_of(folder.write("a", content)) == wanted);
  CHECK(lines_of(folder.write("b", gzip(content))) == wanted);
}

TEST_CASE("a plain file is entered at any line's offset with its number", "[data][lines]") {
  const TemporaryFolder folder;
  std::string content = "\xEF\xBB\xBF";
  for (int i = 1; i <= 3000; ++i) {
    content += "line " + std::to_string(i) + (i % 3 == 0 ? "\r\n" : "\n");
  }
  LineSource source(folder.write("a", content));
  std::vector<std::int64_t> offsets;
  std::string_view line;
  while (source.next(line)) {
    offsets.push_back(source.line_offset());
  }
  REQUIRE(offsets.size() == 3000);
  for (const std::int64_t number : {2999, 1, 1500, 3000, 2}) {
    source.seek(offsets[static_cast<std::size_t>(number - 1)], number);
    REQUIRE(source.next(line));
    CHECK(line == "line " + std::to_string(number));
    CHECK(source.line_number() == number);
    CHECK(source.line_offset() == offsets[static_cast<std::size_t>(number - 1)]);
  }
}

TEST_CASE("globs are sorted, lists keep their order, literal names win", "[data][paths]") {
  const TemporaryFolder folder;
  const std::string b = folder.write("b.jsonl", "");
  const std::string a = folder.write("a.jsonl", "");
  const std::string star = folder.write("[x].txt", "");
  CHECK(expand_paths({folder.path("*.jsonl")}) == std::vector<std::string>{a, b});
  CHECK(expand_paths({b, folder.path("?.jsonl")}) == std::vector<std::string>{b, a, b});
  CHECK(expand_paths({star}) == std::vector<std::string>{star});
}

TEST_CASE("patterns without matches, missing files, folders and pipes are errors", "[data][paths]") {
  const TemporaryFolder folder;
  CHECK_THAT(message_of<IoError>([&] { expand_paths({folder.path("*.nothing")}); }), Contains("*.nothing"));
  CHECK_THAT(message_of<IoError>([&] { expand_paths({folder.path("missing.txt")}); }),
             Contains("missing.txt"));
  CHECK_THAT(message_of<IoError>([&] { expand_paths({folder.path("")}); }), Contains("is a folder"));
  CHECK_THAT(message_of<IoError>([&] { expand_paths({"/dev/null"}); }), Contains("not a regular file"));
  CHECK_THROWS_AS(expand_paths({}), ConfigError);
  CHECK_THAT(message_of<IoError>([&] { LineSource(folder.path("")); }), Contains("is a folder"));
  CHECK_THAT(message_of<IoError>([&] { LineSource(folder.path("missing.txt")); }), Contains("missing.txt"));
}
