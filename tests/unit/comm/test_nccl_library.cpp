#include "caravan/comm/nccl_library.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <iterator>

#include "caravan/core/error.h"
#include "src/comm/nccl_abi.h"
#include "tests/support/fake_nccl.h"
#include "tests/support/temporary_folder.h"

using namespace caravan;
using namespace caravan::test;

namespace {

/// A variable of the environment, as before when it goes.
class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    if (const char* before = std::getenv(name)) {
      before_ = before;
      was_set_ = true;
    }
    setenv(name, value.c_str(), 1);
  }
  ~Variable() {
    if (was_set_) {
      setenv(name_, before_.c_str(), 1);
    } else {
      unsetenv(name_);
    }
  }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;
  Variable(Variable&&) = delete;
  Variable& operator=(Variable&&) = delete;

 private:
  const char* name_;
  std::string before_;
  bool was_set_ = false;
};

}  // namespace

TEST_CASE("a library with NCCL's functions is opened by file or folder", "[comm][nccl]") {
  const Variable by_file("CARAVAN_NCCL", fake_nccl_file());
  const NcclSearch found = find_nccl();
  REQUIRE(found.library != nullptr);
  CHECK(found.library->version() == "2.28.9");
  CHECK(found.library->path() == fake_nccl_file());
  CHECK(found.tried.empty());

  const TemporaryFolder folder;
  std::filesystem::copy_file(fake_nccl_file(), folder.path() / "libnccl.so.2");
  const Variable by_folder("CARAVAN_NCCL", folder.path().string());
  REQUIRE(find_nccl().library != nullptr);
}

TEST_CASE("an NCCL that is installed has the functions, and makes ids", "[comm][nccl]") {
  const Variable none("CARAVAN_NCCL", "");
  const NcclSearch search = find_nccl();
  if (search.library == nullptr) {
    std::puts("SKIPPED: no NCCL is installed where the program looks for it");
    return;
  }
  CAPTURE(search.library->path(), search.library->version());
  nccl::UniqueId id{};
  REQUIRE(search.library->functions().get_unique_id(&id) == nccl::kSuccess);
  CHECK(std::any_of(std::begin(id.bytes), std::end(id.bytes), [](char byte) { return byte != 0; }));
  CHECK_THAT(search.library->functions().get_error_string(nccl::kInvalidArgument),
             Catch::StartsWith("invalid argument"));
}

TEST_CASE("what CARAVAN_NCCL names is the only place, and the message says why it does not do",
          "[comm][nccl]") {
  const TemporaryFolder folder;
  const auto reason = [&](const std::string& place) {
    const Variable given("CARAVAN_NCCL", place);
    const NcclSearch search = find_nccl();
    REQUIRE(search.library == nullptr);
    REQUIRE(search.tried.size() == 1);
    return search.why_none();
  };
  CHECK(
      reason((folder.path() / "none.so").string()) ==
      fmt::format("no NCCL that can be used; tried {} (no such file)", (folder.path() / "none.so").string()));
  CHECK_THAT(reason(folder.path().string()), Catch::Contains("libnccl.so.2 (no such file)"));
  write_text((folder.path() / "text.so").string(), "this is no library");
  CHECK_THAT(reason((folder.path() / "text.so").string()), Catch::Contains("text.so"));
  CHECK_THAT(reason(fake_nccl_file("libincomplete_nccl.so")),
             Catch::Contains("has no function ncclRecv: it is no NCCL from 2.18 on"));
}

TEST_CASE("versions before 2.18 and from 3 on are refused by number", "[comm][nccl]") {
  const Variable given("CARAVAN_NCCL", fake_nccl_file());
  for (const auto& [code, version] :
       {std::pair("2708", "2.7.8"), std::pair("21705", "2.17.5"), std::pair("30000", "3.0.0")}) {
    const Variable told("FAKE_NCCL_VERSION", code);
    const NcclSearch search = find_nccl();
    REQUIRE(search.library == nullptr);
    CHECK_THAT(search.why_none(),
               Catch::Contains(fmt::format("is NCCL {}; ", version)) &&
                   Catch::Contains("versions from 2.18 up to, but without, 3 can be used"));
  }
  const Variable told("FAKE_NCCL_VERSION", "21800");
  REQUIRE(find_nccl().library->version() == "2.18.0");
}

TEST_CASE(
    "without CARAVAN_NCCL the system, the toolkit and Python's folders are looked through in this order",
    "[comm][nccl]") {
  const TemporaryFolder folder;
  const auto site = folder.path() / "venv" / "lib" / "python3.11" / "site-packages";
  std::filesystem::create_directories(site);
  const Variable none("CARAVAN_NCCL", "");
  const Variable home("CUDA_HOME", "/toolkit");
  const Variable path("CUDA_PATH", "");
  const Variable venv("VIRTUAL_ENV", (folder.path() / "venv").string());
  const Variable conda("CONDA_PREFIX", "");
  const Variable sites("CARAVAN_PYTHON_SITE", "/site/one:/site/two");
  const std::vector<std::string> places = nccl_places();
  CHECK(places.front() == "libnccl.so.2");
  CHECK(places.at(1) == "/toolkit/lib64/libnccl.so.2");
  const std::vector<std::string> pythons = {(site / "nvidia/nccl/lib/libnccl.so.2").string(),
                                            "/site/one/nvidia/nccl/lib/libnccl.so.2",
                                            "/site/two/nvidia/nccl/lib/libnccl.so.2"};
  CHECK(std::search(places.begin(), places.end(), pythons.begin(), pythons.end()) != places.end());
}
