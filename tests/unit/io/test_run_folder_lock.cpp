#include "caravan/io/run_folder_lock.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <optional>

#include "caravan/core/error.h"
#include "support/temporary_folder.h"

using namespace caravan;
using caravan::test::TemporaryFolder;
using caravan::test::write_text;
namespace fs = std::filesystem;

TEST_CASE("a second run in the folder is refused and told who is there", "[io][run_folder_lock]") {
  const TemporaryFolder folder;
  const std::string run = folder / "a/run";
  std::optional<RunFolderLock> first(std::in_place);
  first->take(run);
  RunFolderLock second;
  const std::string holder = "output.dir " + run + " is in use by process";
  CHECK_THROWS_WITH(second.take(run), Catch::Contains(holder) && Catch::Contains("choose another"));
  CHECK_THROWS_WITH(second.take_if_present(run), Catch::Contains(holder));
  first.reset();
  CHECK_FALSE(fs::exists(run + "/run.lock"));
  second.take(run);
  CHECK(fs::exists(run + "/run.lock"));
}

TEST_CASE("a start that may still fail leaves no lock file", "[io][run_folder_lock]") {
  const TemporaryFolder folder;
  {
    RunFolderLock lock;
    lock.take_if_present(folder / "none");
    CHECK_FALSE(fs::exists(folder / "none"));
    fs::create_directories(folder / "run");
    lock.take_if_present(folder / "run");
    CHECK(fs::is_empty(folder / "run"));
  }
  CHECK(fs::is_empty(folder / "run"));
}

TEST_CASE("a lock file that a killed run left is taken over", "[io][run_folder_lock]") {
  const TemporaryFolder folder;
  const std::string file = folder / "run/run.lock";
  write_text(file, "process 1 on elsewhere, since long ago\n");
  {
    RunFolderLock lock;
    lock.take_if_present(folder / "run");
    RunFolderLock other;
    CHECK_THROWS_WITH(other.take(folder / "run"), Catch::Contains("process 1 on elsewhere"));
  }
  CHECK(fs::exists(file));  // the start came to nothing
  {
    RunFolderLock lock;
    lock.take_if_present(folder / "run");
    lock.take(folder / "run");
  }
  CHECK_FALSE(fs::exists(file));
}

TEST_CASE("a lock file that is a link is not followed", "[io][run_folder_lock]") {
  const TemporaryFolder folder;
  write_text(folder / "mine", "x");
  fs::create_directories(folder / "run");
  fs::create_symlink(folder / "mine", folder / "run/run.lock");
  RunFolderLock lock;
  CHECK_THROWS_AS(lock.take(folder / "run"), IoError);
  CHECK(test::read_text(folder / "mine") == "x");
}
