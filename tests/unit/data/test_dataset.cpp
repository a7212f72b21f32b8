#include "caravan/data/dataset.h"

#include <catch2/catch.hpp>
#include <filesystem>

#include "caravan/core/parallel_for.h"
#include "caravan/data/document_stream.h"
#include "support/data_files.h"

using namespace caravan;
using caravan::test::gzip;
using caravan::test::message_of;
using caravan::test::TemporaryFolder;
using Catch::Matchers::Contains;

namespace {

std::vector<std::string> texts_of(const Dataset& dataset) {
  SampleReader reader(dataset);
  Sample sample;
  std::vector<std::string> texts;
  while (reader.read(sample)) {
    REQUIRE(sample.kind == SampleKind::kText);
    texts.push_back(sample.text);
  }
  return texts;
}

std::string numbered_lines(int first, int count) {
  std::string content;
  for (int i = first; i < first + count; ++i) {
    content += "{\"ids\": [" + std::to_string(i) + "]}\n";
    if (i % 5 == 0) {
      content += "\n";
    }
  }
  return content;
}

}  // namespace

TEST_CASE("the format follows from the name, else from the first line", "[data][dataset]") {
  const TemporaryFolder folder;
  const std::string json = "{\"text\": \"a\"}\n";
  const auto format = [&](const std::string& name, const std::string& content) {
    return Dataset({folder.write(name, content)}).files().front().format;
  };
  CHECK(format("a.jsonl", json) == FileFormat::kJsonLines);
  CHECK(format("a.ndjson", json) == FileFormat::kJsonLines);
  CHECK(format("a.json.gz", gzip(json)) == FileFormat::kJsonLines);
  CHECK(format("a.txt", json) == FileFormat::kPlainText);
  CHECK(format("a.txt.gz", gzip(json)) == FileFormat::kPlainText);
  CHECK(format("a.data", "\n" + json) == FileFormat::kJsonLines);
  CHECK(format("b", "{\"txt\": \"a\"}\n") == FileFormat::kPlainText);
  CHECK_THAT(message_of<IoError>([&] { Dataset({folder.write("c.json", "[\n{\"text\": \"a\"}\n]\n")}); }),
             Contains("c.json:1:"));
}

TEST_CASE("the checksum is one of the samples in their order, whatever file they are in", "[data][dataset]") {
  const TemporaryFolder folder;
  const std::string lines = numbered_lines(0, 12);
  const auto checksum = [&](const std::string& name, const std::string& content) {
    return Dataset({folder.write(name, content)}).checksum();
  };
  const std::uint64_t expected = checksum("a.jsonl", lines);
  CHECK(checksum("other.jsonl", "\n" + lines) == expected);
  CHECK(checksum("a.jsonl.gz", gzip(lines)) == expected);
  // As many samples of as many bytes.
  CHECK(checksum("b.jsonl", numbered_lines(1, 9) + numbered_lines(0, 1) + numbered_lines(10, 2)) != expected);
  CHECK(
      Dataset({folder.write("c.jsonl", numbered_lines(0, 6)), folder.write("d.jsonl", numbered_lines(6, 6))})
          .checksum() !=
      Dataset({folder.write("e.jsonl", numbered_lines(6, 6)), folder.write("f.jsonl", numbered_lines(0, 6))})
          .checksum());
}

TEST_CASE("blank lines are no samples in any format", "[data][dataset]") {
  const TemporaryFolder folder;
  CHECK(texts_of(Dataset({folder.write("a.txt", "\xEF\xBB\xBF\r\n one \r\n \t \n\ntwo")})) ==
        std::vector<std::string>{" one ", "two"});
  CHECK(
      texts_of(Dataset({folder.write("a.jsonl", "\n{\"text\": \"one\"}\r\n\r\n{\"text\": \"two\"}\n\n")})) ==
      std::vector<std::string>{"one", "two"});
}

TEST_CASE("text and ids may alternate line by line", "[data][dataset]") {
  const TemporaryFolder folder;
  const Dataset dataset({folder.write("a.jsonl", "{\"ids\": [4, 5]}\n{\"text\": \"t\"}\n{\"ids\": []}\n")});
  CHECK(dataset.size() == 3);
  CHECK(dataset.text_samples() == 1);
  CHECK(dataset.first_text_sample() == folder.path("a.jsonl") + ":2");
  SampleReader reader(dataset);
  Sample sample;
  REQUIRE(reader.read(sample));
  CHECK(sample.kind == SampleKind::kIds);
  CHECK(sample.ids == std::vector<std::int32_t>{4, 5});
  REQUIRE(reader.read(sample));
  CHECK(sample.kind == SampleKind::kText);
  CHECK(sample.text == "t");
  REQUIRE(reader.read(sample));
  CHECK(sample.kind == SampleKind::kIds);
  CHECK(sample.ids.empty());
  CHECK_FALSE(reader.read(sample));
}

TEST_CASE("a malformed line anywhere is an error with file and line when the data set is opened",
          "[data][dataset]") {
  const TemporaryFolder folder;
  const std::string good = numbered_lines(0, 700);  // with blank lines: 840 lines
  for (const char* bad :
       {"{\"ids\": [1}", "{\"text\": \"\xFF\"}", "{\"id\": [1]}", "{\"ids\": [1000]}", "nothing"}) {
    const std::string content = good + bad + "\n" + good;
    CHECK_THAT(
        message_of<IoError>([&] { Dataset({folder.write("a.jsonl", content)}, {.vocab_size = 1000}); }),
        Contains("a.jsonl:841: "));
    CHECK_THAT(message_of<IoError>(
                   [&] { Dataset({folder.write("a.jsonl.gz", gzip(content))}, {.vocab_size = 1000}); }),
               Contains("a.jsonl.gz:841: "));
  }
  CHECK_THAT(message_of<IoError>([&] { Dataset({folder.write("b.txt", "fine\nnot \xE9\n")}); }),
             Contains("b.txt:2: column 5"));
  CHECK_THAT(message_of<IoError>([&] { Dataset({folder.write("c.txt", std::string("a\0b\0", 4))}); }),
             Contains("c.txt:1: ") && Contains("UTF-16"));
}

TEST_CASE("of several malformed files the first in order is named, whatever the number of threads",
          "[data][dataset]") {
  const TemporaryFolder folder;
  for (int i = 0; i < 40; ++i) {
    folder.write("part" + std::to_string(100 + i) + ".jsonl",
                 numbered_lines(0, i < 7 ? 2000 : 3) + (i < 6 ? "" : "bad"));
  }
  for (const int threads : {1, 4}) {
    set_thread_count(threads);
    CHECK_THAT(message_of<IoError>([&] { Dataset({folder.path("*.jsonl")}); }),
               Contains("part106.jsonl:2401: "));
  }
  set_thread_count(1);
}

TEST_CASE("data without samples is an error, one empty file among others is not", "[data][dataset]") {
  const TemporaryFolder folder;
  const std::string empty = folder.write("empty.txt", "");
  const std::string blank = folder.write("blank.jsonl", "\n \n");
  const std::string full = folder.write("full.txt", "a\nb\n");
  CHECK_THAT(message_of<IoError>([&] { Dataset({empty}); }), Contains("empty.txt: no samples"));
  CHECK_THAT(message_of<IoError>([&] { Dataset({empty, blank}); }), Contains("all 2 files"));
  CHECK(texts_of(Dataset({empty, full, blank, full, empty})) == std::vector<std::string>{"a", "b", "a", "b"});
}

TEST_CASE("every sample is reached by seeking, in plain and gzip files alike", "[data][dataset]") {
  const TemporaryFolder folder;
  std::vector<std::string> files = {
      folder.write("a.jsonl", numbered_lines(0, 1000)), folder.write("b.jsonl", ""),
      folder.write("c.jsonl.gz", gzip(numbered_lines(1000, 500))),
      folder.write("d.jsonl", "\xEF\xBB\xBF" + numbered_lines(1500, 333)), folder.write("e.jsonl", "\n")};
  const Dataset dataset(files, {.vocab_size = 1833, .index_stride = 16});
  REQUIRE(dataset.size() == 1833);
  CHECK(dataset.files()[0].every_kth.size() == 63);
  CHECK(dataset.files()[2].every_kth.empty());
  SampleReader reader(dataset);
  Sample sample;
  const auto expect = [&](std::int64_t number) {
    REQUIRE(reader.position() == number);
    REQUIRE(reader.read(sample));
    REQUIRE(sample.ids == std::vector<std::int32_t>{static_cast<std::int32_t>(number)});
  };
  for (std::int64_t i = 0; i < 400; ++i) {
    const std::int64_t number = (i * 1237) % 1833;
    reader.seek(number);
    expect(number);
    if (number + 1 < 1833) {
      expect(number + 1);
    }
  }
  reader.seek(1833);
  CHECK_FALSE(reader.read(sample));
  reader.seek(0);
  for (std::int64_t number = 0; number < 1833; ++number) {
    expect(number);
  }
  CHECK_FALSE(reader.read(sample));
}

TEST_CASE("data that changes while in use is an error wherever the reader is", "[data][dataset]") {
  const TemporaryFolder folder;
  const std::string old = numbered_lines(0, 100);
  const std::string path = folder.write("a.jsonl", old);
  const Dataset dataset({path});
  Sample sample;
  const auto read_all = [&](SampleReader& reader) {
    return message_of<IoError>([&] {
      while (reader.read(sample)) {
      }
    });
  };
  SampleReader begun(dataset);
  REQUIRE(begun.read(sample));
  SECTION("it shrinks") {
    folder.write("a.jsonl", numbered_lines(0, 40));
    CHECK_THAT(read_all(begun), Contains("a.jsonl: changed since the run opened it (it had"));
  }
  SECTION("a line of it breaks") {
    folder.write("a.jsonl", "{\"ids\": [\n" + numbered_lines(0, 100));
    CHECK_THAT(read_all(begun), Contains("a.jsonl: changed since"));
  }
  SECTION("it is written anew with as many bytes") {
    std::string other = old;
    other[10] = '7';
    folder.write("a.jsonl", other);
    CHECK_THAT(read_all(begun), Contains("it was written to"));
  }
  SECTION("it grows, seen by a reader that does not come to its end") {
    folder.write("a.jsonl", old + numbered_lines(100, 1));
    CHECK_THAT(message_of<IoError>([&] { begun.check_unchanged(); }), Contains("a.jsonl: changed since"));
  }
  SampleReader later(dataset);
  CHECK_THAT(message_of<IoError>([&] { later.read(sample); }), Contains("a.jsonl: changed since"));
}

TEST_CASE("another file moved to the name of one in use is seen by whoever opens it", "[data][dataset]") {
  const TemporaryFolder folder;
  const std::string path = folder.write("a.jsonl", numbered_lines(0, 9));
  const Dataset dataset({path});
  const auto time = std::filesystem::last_write_time(path);
  const std::string other = folder.write("b.jsonl", numbered_lines(0, 9));
  std::filesystem::last_write_time(other, time);
  std::filesystem::rename(other, path);
  SampleReader reader(dataset);
  Sample sample;
  CHECK_THAT(message_of<IoError>([&] { reader.read(sample); }), Contains("another file is in its place"));
}

TEST_CASE("an epoch over a part that ends inside a file sees that the file grew", "[data][dataset]") {
  const TemporaryFolder folder;
  const std::string path = folder.write("a.jsonl", numbered_lines(0, 10));
  for (const std::int64_t slots : {0, 4}) {
    folder.write("a.jsonl", numbered_lines(0, 10));
    const Dataset data({path});
    DocumentStream stream(data, nullptr, {{0, 5, 0}, 16, slots, {1, 0, 0}}, 0);
    Document document;
    REQUIRE(stream.next(document));
    folder.write("a.jsonl", numbered_lines(0, 11));
    CHECK_THAT(message_of<IoError>([&] {
                 while (stream.next(document)) {
                 }
               }),
               Contains("changed since the run opened it"));
  }
}
