#include "src/app/cpu_quota.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "support/temporary_folder.h"

using namespace caravan::app;
using caravan::test::TemporaryFolder;

namespace {

void write(const std::filesystem::path& file, const std::string& text) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file) << text;
}

}  // namespace

TEST_CASE("a quota of control groups version 2 is the least of all levels", "[app][threads]") {
  const TemporaryFolder folder;
  const std::filesystem::path& mount = folder.path();
  write(mount / "cpu.max", "max 100000\n");
  CHECK_FALSE(cpu_quota("0::/job/step\n", mount.string()));
  write(mount / "job/cpu.max", "400000 100000\n");
  write(mount / "job/step/cpu.max", "max 100000\n");
  CHECK(cpu_quota("0::/job/step\n", mount.string()) == 4.0);
  write(mount / "job/step/cpu.max", "150000 100000\n");
  CHECK(cpu_quota("0::/job/step\n", mount.string()) == 1.5);
  CHECK(cpu_quota("0::/job\n", mount.string()) == 4.0);
}

TEST_CASE("a container that sees its group as the root is read at the root", "[app][threads]") {
  const TemporaryFolder folder;
  const std::filesystem::path& mount = folder.path();
  write(mount / "cpu.max", "200000 100000\n");
  CHECK(cpu_quota("0::/not/visible/here\n", mount.string()) == 2.0);
}

TEST_CASE("a quota of control groups version 1 is read beside other controllers", "[app][threads]") {
  const TemporaryFolder folder;
  const std::filesystem::path& mount = folder.path();
  write(mount / "cpu/batch/cpu.cfs_quota_us", "300000\n");
  write(mount / "cpu/batch/cpu.cfs_period_us", "100000\n");
  const std::string groups = "7:memory:/other\n4:cpu,cpuacct:/batch\n3:cpuset:/\n0::/\n";
  CHECK(cpu_quota(groups, mount.string()) == 3.0);
  write(mount / "cpu/batch/cpu.cfs_quota_us", "-1\n");
  CHECK_FALSE(cpu_quota(groups, mount.string()));
}

TEST_CASE("what is no list of groups sets no quota", "[app][threads]") {
  CHECK_FALSE(cpu_quota("", "/nowhere"));
  CHECK_FALSE(cpu_quota("words\n:\n::\n0::\n0::x\n", "/nowhere"));
}
