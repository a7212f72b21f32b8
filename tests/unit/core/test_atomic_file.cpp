#include "caravan/core/atomic_file.h"

#include <fnmatch.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

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

TEST_CASE("temporary files are new, with the permissions of any new file", "[core][atomic_file]") {
  const Folder folder;
  const std::string path = (folder.path / "a.bin").string();
  std::set<std::string> names;
  for (int i = 0; i < 20; ++i) {
    const TemporaryFile file = create_temporary_file(path);
    ::close(file.descriptor);
    names.insert(file.path);
    CHECK(::fnmatch((path + kTemporarySuffixPattern).c_str(), file.path.c_str(), 0) == 0);
    std::ofstream(folder.path / "usual") << "x";
    CHECK(fs::status(file.path).permissions() == fs::status(folder.path / "usual").permissions());
  }
  CHECK(names.size() == 20);
  const std::string inner = create_temporary_folder(path);
  CHECK(fs::is_directory(inner));
  fs::create_directory(folder.path / "usual folder");
  CHECK(fs::status(inner).permissions() == fs::status(folder.path / "usual folder").permissions());
}

TEST_CASE("an atomic write does not follow a link that was put where its temporary file used to be",
          "[core][atomic_file]") {
  const Folder folder;
  std::ofstream(folder.path / "victim") << "untouched";
  fs::create_symlink(folder.path / "victim", folder.path / fmt::format("a.bin.{}.tmp", ::getpid()));
  write_file_atomically((folder.path / "a.bin").string(), "new");
  CHECK(read(folder.path / "victim") == "untouched");
  CHECK(read(folder.path / "a.bin") == "new");
}

TEST_CASE("folders are made with those above them, and existing ones stay", "[core][atomic_file]") {
  const Folder folder;
  create_folders((folder.path / "a/b/c").string());
  CHECK(fs::is_directory(folder.path / "a/b/c"));
  CHECK_NOTHROW(create_folders((folder.path / "a/b").string()));
  std::ofstream(folder.path / "file") << "x";
  CHECK_THROWS_AS(create_folders((folder.path / "file/b").string()), IoError);
}
