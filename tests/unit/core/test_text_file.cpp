#include "caravan/core/text_file.h"

#include <sys/stat.h>

#include <catch2/catch.hpp>

#include "caravan/core/error.h"
#include "support/data_files.h"

using namespace caravan;
using namespace caravan::test;

TEST_CASE("a small file is read whole, up to exactly its limit", "[core][text_file]") {
  const TemporaryFolder folder;
  const std::string text(1000, 'x');
  write_text(folder / "a.json", text);
  CHECK(read_text_file(folder / "a.json", 1000) == text);
  CHECK_THAT(message_of<IoError>([&] { read_text_file(folder / "a.json", 999); }),
             Catch::Contains("a.json: has more than the 999 bytes"));
  write_text(folder / "empty", "");
  CHECK(read_text_file(folder / "empty", 0).empty());
}

TEST_CASE("files that say they are empty and are not are read", "[core][text_file]") {
  CHECK_THAT(read_text_file("/proc/self/status", 1 << 20), Catch::Contains("Pid:"));
  CHECK_THROWS_AS(read_text_file("/proc/self/status", 10), IoError);
}

TEST_CASE("what is no regular file is refused at once, with its name", "[core][text_file]") {
  const TemporaryFolder folder;
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_THAT(message_of<IoError>([&] { read_text_file(folder / "pipe", 9); }),
             Catch::Contains("pipe: is a device or pipe"));
  CHECK_THAT(message_of<IoError>([&] { read_text_file(folder.path().string(), 9); }),
             Catch::Contains("is a folder"));
  CHECK_THAT(message_of<IoError>([&] { read_text_file("/dev/zero", 9); }), Catch::Contains("/dev/zero"));
  CHECK_THAT(message_of<IoError>([&] { read_text_file(folder / "absent", 9); }),
             Catch::Contains("absent: cannot be read: No such file"));
}
