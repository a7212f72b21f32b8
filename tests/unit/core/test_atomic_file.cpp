#include "caravan/core/atomic_file.h"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "caravan/core/error.h"

using namespace caravan;
namespace fs = std::filesystem;

namespace {

struct Folder {
  fs::path path = fs::temp_directory_path() / fmt::format("caravan_atomic_file_{}", ::getpid());
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
  std::ptrdiff_t entries() const {
    return std::distance(fs::directory_iterator(path), fs::directory_iterator());
  }
};

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("an atomic write replaces the whole file and leaves nothing beside it", "[core][atomic_file]") {
  const Folder folder;
  const std::string path = (folder.path / "a.bin").string();
  write_file_atomically(path, "a long first content");
  const std::string second("short\0and binary", 16);
  write_file_atomically(path, second);
  CHECK(read(path) == second);
  CHECK(folder.entries() == 1);
}

TEST_CASE("an atomic write that fails keeps what was there and names the path", "[core][atomic_file]") {
  const Folder folder;
  const std::string missing = (folder.path / "absent" / "a.bin").string();
  REQUIRE_THROWS_AS(write_file_atomically(missing, "x"), IoError);
  REQUIRE_THROWS_WITH(write_file_atomically(missing, "x"), Catch::Contains("absent/a.bin"));
  fs::create_directories(folder.path / "occupied" / "inside");
  REQUIRE_THROWS_AS(write_file_atomically((folder.path / "occupied").string(), "x"), IoError);
  CHECK(fs::exists(folder.path / "occupied" / "inside"));
  CHECK(folder.entries() == 1);
}
