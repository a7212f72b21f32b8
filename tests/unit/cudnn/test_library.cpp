// Finding and opening cuDNN: a fake one, one of another version, something else under its name, none.
#include "kernels/cudnn/library.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "caravan/core/error.h"
#include "support/temporary_folder.h"

using namespace caravan;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

/// An environment variable for the length of a scope.
class Environment {
 public:
  Environment(const char* name, const std::string& value) : name_(name) { setenv(name, value.c_str(), 1); }
  ~Environment() { unsetenv(name_); }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;
  Environment(Environment&&) = delete;
  Environment& operator=(Environment&&) = delete;

 private:
  const char* name_;
};

}  // namespace

TEST_CASE("CARAVAN_CUDNN names the library or its folder, and nothing else is tried", "[cudnn]") {
  for (const fs::path& given : {fs::path(CARAVAN_FAKE_CUDNN), fs::path(CARAVAN_FAKE_CUDNN).parent_path()}) {
    const Environment variable("CARAVAN_CUDNN", given.string());
    const cudnn::Search search = cudnn::find();
    REQUIRE(search.library != nullptr);
    CHECK(search.library->version() == "9.19.0");
    CHECK(fs::equivalent(search.library->path(), CARAVAN_FAKE_CUDNN));
  }
  const Environment variable("CARAVAN_CUDNN", "/no/such/libcudnn.so.9");
  const cudnn::Search search = cudnn::find();
  CHECK(search.library == nullptr);
  CHECK(search.why_none() ==
        "no cuDNN that can be used; tried /no/such/libcudnn.so.9 (no such file); install cuDNN 9, name its "
        "folder in "
        "CARAVAN_CUDNN, or set attention to own");
}

TEST_CASE("a cuDNN of another version, and a file that is none, are refused with the reason", "[cudnn]") {
  {
    const Environment version("FAKE_CUDNN_VERSION", "100100");
    CHECK_THROWS_WITH(cudnn::Library(CARAVAN_FAKE_CUDNN),
                      Contains("is cuDNN 10.1.0; versions from 9.10 up to, but without, 10 can be used"));
  }
  {
    const Environment version("FAKE_CUDNN_VERSION", "8907");
    CHECK_THROWS_WITH(cudnn::Library(CARAVAN_FAKE_CUDNN), Contains("versions from 9.10 up to"));
  }
  const test::TemporaryFolder folder;
  const fs::path file = fs::path(folder.path()) / "libcudnn.so.9";
  std::ofstream(file) << "not a library";
  CHECK_THROWS_WITH(cudnn::Library(file.string()), Contains("libcudnn.so.9"));
  CHECK_THROWS_WITH(cudnn::Library("libm.so.6"),
                    Contains("has no function cudnnGetVersion: it is no cuDNN 9"));
}

TEST_CASE("the loader's search comes first, then toolkits, then Pythons", "[cudnn]") {
  const test::TemporaryFolder folder;
  const fs::path site = fs::path(folder.path()) / "lib/python3.11/site-packages";
  fs::create_directories(site);
  const Environment home("CUDA_HOME", "/opt/cuda");
  const Environment python("VIRTUAL_ENV", folder.path());
  const Environment sites("CARAVAN_PYTHON_SITE", "/first:/second");
  std::vector<std::string> places = cudnn::places();
  const std::vector<std::string> wanted = {"libcudnn.so.9",
                                           "/opt/cuda/lib64/libcudnn.so.9",
                                           "/opt/cuda/lib/libcudnn.so.9",
                                           "/opt/cuda/targets/x86_64-linux/lib/libcudnn.so.9",
                                           "/opt/cuda/targets/sbsa-linux/lib/libcudnn.so.9",
                                           "/usr/local/cuda/lib64/libcudnn.so.9",
                                           "/usr/local/cuda/lib/libcudnn.so.9",
                                           "/usr/local/cuda/targets/x86_64-linux/lib/libcudnn.so.9",
                                           "/usr/local/cuda/targets/sbsa-linux/lib/libcudnn.so.9",
                                           (site / "nvidia/cudnn/lib/libcudnn.so.9").string(),
                                           "/first/nvidia/cudnn/lib/libcudnn.so.9",
                                           "/second/nvidia/cudnn/lib/libcudnn.so.9"};
  REQUIRE(places.size() >= wanted.size());
  places.resize(wanted.size());  // then Pythons of this machine: unit.core.runtime_library
  CHECK(places == wanted);
}
