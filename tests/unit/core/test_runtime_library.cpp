// Where a library that is opened at run time is looked for.
#include "caravan/core/runtime_library.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <system_error>
#include <vector>

#include "tests/support/temporary_folder.h"

using namespace caravan;
using namespace caravan::test;
namespace fs = std::filesystem;

namespace {

const RuntimeLibrary kLibrary = {
    .file = "libthing.so.3", .variable = "CARAVAN_THING", .python_folder = "thing"};

using Given = std::map<std::string, std::string>;

/// The variables that are looked at, unset but for those given, for the length of a scope.
class Variables {
 public:
  explicit Variables(const Given& given) {
    for (const char* name : {"CARAVAN_THING", "CUDA_HOME", "CUDA_PATH", "VIRTUAL_ENV", "CONDA_PREFIX",
                             "CARAVAN_PYTHON_SITE", "HOME"}) {
      const char* before = std::getenv(name);
      before_[name] = before != nullptr ? before : "";
      const auto found = given.find(name);
      setenv(name, found != given.end() ? found->second.c_str() : "", 1);
    }
  }
  ~Variables() {
    for (const auto& [name, value] : before_) {
      setenv(name.c_str(), value.c_str(), 1);
    }
  }
  Variables(const Variables&) = delete;
  Variables& operator=(const Variables&) = delete;
  Variables(Variables&&) = delete;
  Variables& operator=(Variables&&) = delete;

 private:
  std::map<std::string, std::string> before_;
};

/// A folder of packages below `prefix`, made, and the library's file in it.
std::string made(const fs::path& prefix, const char* python, const char* packages) {
  const fs::path site = prefix / "lib" / python / packages;
  fs::create_directories(site);
  return (site / "nvidia" / "thing" / "lib" / "libthing.so.3").string();
}

/// The places but for those in the machine's own Pythons.
std::vector<std::string> places_elsewhere() {
  std::vector<std::string> places = library_places(kLibrary);
  std::erase_if(places, [](const std::string& place) { return place.starts_with("/usr/local/lib/python"); });
  return places;
}

}  // namespace

TEST_CASE("Pythons are looked through after toolkits: environments, folders given, the user's", "[library]") {
  const TemporaryFolder folder;
  const fs::path& root = folder.path();
  const std::string venv = made(root / "venv", "python3.11", "site-packages");
  const std::string conda = made(root / "conda", "python3.12", "site-packages");
  const std::string home = made(root / "home" / ".local", "python3.9", "site-packages");
  fs::create_directories(root / "venv" / "lib" / "pkgconfig" / "site-packages");  // of no Python
  const Variables variables(Given{{"CUDA_HOME", "/toolkit"},
                                  {"VIRTUAL_ENV", (root / "venv").string()},
                                  {"CONDA_PREFIX", (root / "conda").string()},
                                  {"CARAVAN_PYTHON_SITE", "/one:/two"},
                                  {"HOME", (root / "home").string()}});
  const std::vector<std::string> places = places_elsewhere();
  CHECK(places.front() == "libthing.so.3");
  CHECK(places.at(1) == "/toolkit/lib64/libthing.so.3");
  CHECK(std::vector(places.end() - 5, places.end()) ==
        std::vector<std::string>{venv, conda, "/one/nvidia/thing/lib/libthing.so.3",
                                 "/two/nvidia/thing/lib/libthing.so.3", home});
}

TEST_CASE("Debian's dist-packages count like site-packages, and folders that are not there do not",
          "[library]") {
  const TemporaryFolder folder;
  const fs::path& root = folder.path();
  const std::string debian = made(root / ".local", "python3.11", "dist-packages");
  const std::string both = made(root / ".local", "python3.12", "dist-packages");
  const std::string site = made(root / ".local", "python3.12", "site-packages");
  fs::create_directories(root / ".local" / "lib" / "python3.13");
  const Variables variables(Given{{"HOME", root.string()}});
  const std::vector<std::string> places = places_elsewhere();
  CHECK(std::vector(places.end() - 3, places.end()) == std::vector<std::string>{debian, both, site});
}

TEST_CASE("packages for all users of the machine come last", "[library]") {
  const TemporaryFolder folder;
  const std::string own = made(fs::path(folder.path()) / ".local", "python3.11", "site-packages");
  const Variables variables(Given{{"HOME", fs::path(folder.path()).string()}});
  const std::vector<std::string> places = library_places(kLibrary);
  const auto own_place = std::find(places.begin(), places.end(), own);
  REQUIRE(own_place != places.end());
  std::error_code ignored;
  for (const fs::directory_entry& python : fs::directory_iterator("/usr/local/lib", ignored)) {
    for (const char* name : {"dist-packages", "site-packages"}) {
      const fs::path site = python.path() / name;
      if (python.path().filename().string().starts_with("python") && fs::is_directory(site, ignored)) {
        INFO(site);
        CHECK(std::count(own_place, places.end(),
                         (site / "nvidia" / "thing" / "lib" / "libthing.so.3").string()) == 1);
      }
    }
  }
}

TEST_CASE("a variable of the library's own is the only place, a file or its folder", "[library]") {
  const TemporaryFolder folder;
  const std::string file = (fs::path(folder.path()) / "libthing.so.3").string();
  {
    const Variables variables(Given{{"CARAVAN_THING", fs::path(folder.path()).string()}});
    CHECK(library_places(kLibrary) == std::vector<std::string>{file});
  }
  const Variables variables(Given{{"CARAVAN_THING", "/nowhere/other.so"}});
  CHECK(library_places(kLibrary) == std::vector<std::string>{"/nowhere/other.so"});
}
