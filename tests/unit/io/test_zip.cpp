#include <zip.h>

#include <catch2/catch.hpp>

#include "caravan/core/error.h"
#include "caravan/io/zip_reader.h"
#include "caravan/io/zip_writer.h"
#include "support/data_files.h"
#include "support/temporary_folder.h"

using namespace caravan;
using namespace caravan::test;

namespace {

using Members = std::vector<std::pair<std::string, std::string>>;

std::string content(const ZipReader& zip, const std::string& name) {
  const ZipMember* member = zip.find(name);
  REQUIRE(member != nullptr);
  std::string text(static_cast<std::size_t>(member->size), '\0');
  zip.file()->read_at(member->offset, std::as_writable_bytes(std::span(text)));
  return text;
}

std::string write_zip(const std::string& path, const Members& members) {
  OutputFile file(path);
  ZipWriter zip(file);
  for (const auto& [name, text] : members) {
    zip.add(name, text);
  }
  zip.finish();
  file.commit();
  return path;
}

/// An archive made by libzip; `method` is ZIP_CM_STORE or ZIP_CM_DEFLATE.
std::string libzip_write(const std::string& path, const Members& members, zip_int32_t method) {
  zip_t* zip = zip_open(path.c_str(), ZIP_CREATE, nullptr);
  for (const auto& [name, text] : members) {
    const zip_int64_t index = zip_file_add(
        zip, name.c_str(), zip_source_buffer(zip, text.data(), text.size(), 0), ZIP_FL_ENC_UTF_8);
    zip_set_file_compression(zip, static_cast<zip_uint64_t>(index), method, 0);
  }
  REQUIRE(zip_close(zip) == 0);
  return path;
}

std::string refusal(const std::string& path) {
  return message_of<IoError>([&] { ZipReader zip(std::make_shared<InputFile>(path)); });
}

/// Replaces the bytes at `at`, counted from the end when negative.
std::string patched(std::string text, std::ptrdiff_t at, std::string_view replacement) {
  const auto from = at < 0 ? text.size() - static_cast<std::size_t>(-at) : static_cast<std::size_t>(at);
  return text.replace(from, replacement.size(), replacement);
}

const Members kMembers = {{"r/data.pkl", "pickle"}, {"r/data/0", std::string(1000, 'x')}, {"r/empty", ""}};

}  // namespace

TEST_CASE("a written archive has payloads at multiples of 64 bytes and reads back", "[io][zip]") {
  const TemporaryFolder folder;
  const ZipReader zip(std::make_shared<InputFile>(write_zip(folder / "a.zip", kMembers)));
  REQUIRE(zip.members().size() == kMembers.size());
  for (const auto& [name, text] : kMembers) {
    CHECK(content(zip, name) == text);
    CHECK(zip.find(name)->offset % 64 == 0);
  }
  CHECK(zip.find("r/other") == nullptr);
}

TEST_CASE("libzip reads what the writer writes and checks its sums", "[io][zip]") {
  const TemporaryFolder folder;
  const std::string path = write_zip(folder / "a.zip", kMembers);
  int error = 0;
  zip_t* zip = zip_open(path.c_str(), ZIP_RDONLY | ZIP_CHECKCONS, &error);
  REQUIRE(zip != nullptr);
  for (const auto& [name, text] : kMembers) {
    zip_file_t* member = zip_fopen(zip, name.c_str(), 0);
    REQUIRE(member != nullptr);
    std::string read(text.size() + 1, '\0');
    CHECK(zip_fread(member, read.data(), read.size()) == static_cast<zip_int64_t>(text.size()));
    CHECK(zip_fclose(member) == 0);
    CHECK(read.substr(0, text.size()) == text);
  }
  zip_discard(zip);
}

TEST_CASE("stored archives of libzip are read, compressed ones refused", "[io][zip]") {
  const TemporaryFolder folder;
  const ZipReader zip(std::make_shared<InputFile>(libzip_write(folder / "a.zip", kMembers, ZIP_CM_STORE)));
  for (const auto& [name, text] : kMembers) {
    CHECK(content(zip, name) == text);
  }
  CHECK_THAT(refusal(libzip_write(folder / "b.zip", kMembers, ZIP_CM_DEFLATE)),
             Catch::Contains("is compressed"));
}

TEST_CASE("a member of more than 4 GiB is found through the ZIP64 fields", "[io][zip]") {
  // Sparse: the file takes no space and no time.
  const TemporaryFolder folder;
  const std::int64_t size = (std::int64_t{1} << 32U) + 5;
  {
    OutputFile file(folder / "a.zip");
    ZipWriter zip(file);
    zip.begin("r/small", 1);
    zip.write(std::as_bytes(std::span("s", 1)));
    zip.end();
    zip.finish();
    file.commit();
  }
  const std::string small = read_text(folder / "a.zip");
  // The directory entry of the same archive with its size and offset moved into a ZIP64 field.
  const std::size_t entry = small.find("PK\x01\x02");
  const auto number = [](std::uint64_t value) {
    std::string text;
    for (int i = 0; i < 8; ++i) {
      text.push_back(static_cast<char>(value >> (8 * i) & 0xFFU));
    }
    return text;
  };
  std::string directory = small.substr(entry, 46 + 7);
  directory.replace(20, 8, std::string(8, '\xFF'));
  directory.replace(42, 4, std::string(4, '\xFF'));
  directory.replace(30, 2, std::string("\x1C\x00", 2));
  directory += std::string("\x01\x00\x18\x00", 4) + number(static_cast<std::uint64_t>(size)) +
               number(static_cast<std::uint64_t>(size)) + number(0);
  const auto directory_at = static_cast<std::uint64_t>(64 + size);
  std::string end = "PK\x06\x06" + number(44) + std::string(12, '\0') + number(1) + number(1) +
                    number(directory.size()) + number(directory_at) + "PK\x06\x07" + std::string(4, '\0') +
                    number(directory_at + directory.size()) + std::string("\x01\0\0\0", 4) + "PK\x05\x06" +
                    std::string(4, '\0') + std::string(12, '\xFF') + std::string(2, '\0');
  write_text(folder / "big.zip", small.substr(0, 64));
  std::filesystem::resize_file(folder / "big.zip", directory_at);
  std::ofstream(folder / "big.zip", std::ios::binary | std::ios::app) << directory << end;
  const ZipReader zip(std::make_shared<InputFile>(folder / "big.zip"));
  REQUIRE(zip.members().size() == 1);
  CHECK(zip.members()[0].size == size);
  CHECK(zip.members()[0].offset == 64);
}

TEST_CASE("names that leave the archive are refused", "[io][zip]") {
  const TemporaryFolder folder;
  for (const std::string name : {"/etc/passwd", "r/../../x", "..", "a\\b", "a\nb", "\x1B[2J"}) {
    CHECK_THAT(refusal(write_zip(folder / "a.zip", {{name, "x"}})), Catch::Contains("plain relative path"));
  }
  const std::string long_name = refusal(write_zip(folder / "a.zip", {{std::string(60000, 'a'), "x"}}));
  CHECK_THAT(long_name, Catch::Contains("plain relative path"));
  CHECK(long_name.size() < 300);
  CHECK_THAT(refusal(write_zip(folder / "a.zip", {{"r/a", "x"}, {"r/a", "y"}})),
             Catch::Contains("two members"));
}

TEST_CASE("a damaged directory is refused before anything is read by it", "[io][zip]") {
  const TemporaryFolder folder;
  const std::string path = folder / "bad.zip";
  const std::string good = read_text(write_zip(folder / "a.zip", {{"r/a", "x"}}));
  const auto entry = static_cast<std::ptrdiff_t>(good.find("PK\x01\x02"));
  const auto refused = [&](const std::string& text) {
    write_text(path, text);
    return refusal(path);
  };
  REQUIRE(refused(good).empty());
  CHECK_THAT(refused(""), Catch::Contains("no end record"));
  CHECK_THAT(refused(good.substr(0, good.size() - 1)), Catch::Contains("no end record"));
  CHECK_THAT(refused(good + "x"), Catch::Contains("no end record"));
  CHECK_THAT(refused(patched(good, -6, "\xF0\xFF\xFF\x7F")), Catch::Contains("impossible"));
  CHECK_THAT(refused(patched(good, -12, "\xFF\x7F")), Catch::Contains("impossible"));
  CHECK_THAT(refused(patched(good, entry, "QK")), Catch::Contains("no directory entry"));
  CHECK_THAT(refused(patched(good, entry + 8, "\x01")), Catch::Contains("encrypted"));
  CHECK_THAT(refused(patched(good, entry + 20, "\x02")), Catch::Contains("two sizes"));
  CHECK_THAT(refused(patched(good, entry + 20, "\x10\x27\x00\x00\x10\x27\x00\x00")),
             Catch::Contains("two sizes") || Catch::Contains("outside"));
  CHECK_THAT(refused(patched(good, entry + 28, "\xFF\xFF")), Catch::Contains("ends inside an entry"));
  CHECK_THAT(refused(patched(good, entry + 42, "\xFF\xFF\xFF\x7F")), Catch::Contains("outside the archive"));
  CHECK_THAT(refused(patched(good, entry + 42, "\xFF\xFF\xFF\xFF")), Catch::Contains("outside the archive"));
  CHECK_THAT(refused(patched(good, 0, "QK")), Catch::Contains("no local header"));
  CHECK_THAT(refused(patched(good, 28, "\xFF\xFF")), Catch::Contains("outside the archive"));
}

TEST_CASE("every cut and every changed byte of an archive is read or refused, never a crash", "[io][zip]") {
  const TemporaryFolder folder;
  const std::string good = read_text(write_zip(folder / "a.zip", {{"r/a", "x"}, {"r/b", "yy"}}));
  int refused = 0;
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (const char byte : {'\x00', '\xFF', '\x7F'}) {
      std::string bad = good;
      bad[i] = byte;
      write_text(folder / "bad.zip", bad);
      refused += refusal(folder / "bad.zip").empty() ? 0 : 1;
    }
    write_text(folder / "bad.zip", good.substr(0, i));
    CHECK_FALSE(refusal(folder / "bad.zip").empty());
  }
  CHECK(refused > 50);
}
