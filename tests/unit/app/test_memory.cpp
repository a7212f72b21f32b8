#include "src/app/memory.h"

#include <catch2/catch.hpp>

#include "support/temporary_folder.h"

using namespace caravan::app;
using caravan::test::TemporaryFolder;
using caravan::test::write_text;

namespace {

constexpr std::int64_t kMiB = 1 << 20;

void write_meminfo(const TemporaryFolder& root) {
  write_text(root / "proc/meminfo",
             "MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable:    4194304 kB\nBuffers: 2 kB\n");
}

}  // namespace

TEST_CASE("without control groups the machine's figure counts", "[app][memory]") {
  const TemporaryFolder root;
  CHECK(available_memory_bytes(root / "") == 0);
  write_meminfo(root);
  CHECK(available_memory_bytes(root / "") == 4096 * kMiB);
}

TEST_CASE("a limit of a version 2 group or of one above it counts, less what is used", "[app][memory]") {
  const TemporaryFolder root;
  write_meminfo(root);
  write_text(root / "proc/self/cgroup", "0::/job_7/step_0/user\n");
  write_text(root / "sys/fs/cgroup/job_7/step_0/memory.max", "max\n");
  CHECK(available_memory_bytes(root / "") == 4096 * kMiB);
  write_text(root / "sys/fs/cgroup/job_7/memory.max", "1073741824\n");
  write_text(root / "sys/fs/cgroup/job_7/memory.current", "536870912\n");
  CHECK(available_memory_bytes(root / "") == 512 * kMiB);
  // Pages of files that were read go when memory is short.
  write_text(root / "sys/fs/cgroup/job_7/memory.stat", "anon 1\ninactive_file 268435456\nactive_file 3\n");
  CHECK(available_memory_bytes(root / "") == 768 * kMiB);
}

TEST_CASE("a limit of a version 1 memory group counts", "[app][memory]") {
  const TemporaryFolder root;
  write_meminfo(root);
  write_text(root / "proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/box\n0::/\n");
  write_text(root / "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  CHECK(available_memory_bytes(root / "") == 4096 * kMiB);
  write_text(root / "sys/fs/cgroup/memory/box/memory.limit_in_bytes", "104857600\n");
  write_text(root / "sys/fs/cgroup/memory/box/memory.usage_in_bytes", "94371840\n");
  CHECK(available_memory_bytes(root / "") == 10 * kMiB);
}

TEST_CASE("in a container whose path is the host's, the mounted root is the group", "[app][memory]") {
  const TemporaryFolder root;
  write_meminfo(root);
  write_text(root / "proc/self/cgroup", "0::/docker/0123456789\n");
  write_text(root / "sys/fs/cgroup/memory.max", "209715200\n");
  CHECK(available_memory_bytes(root / "") == 200 * kMiB);
}

TEST_CASE("ranks are added up machine by machine", "[app][memory]") {
  CHECK(
      memory_shortages({{"a", 5 * kMiB, 10 * kMiB}, {"a", 5 * kMiB, 10 * kMiB}, {"b", 9 * kMiB, 0}}).empty());
  const auto sentences = memory_shortages(
      {{"a", 5 * kMiB, 100 * kMiB}, {"b", 4 * kMiB, 7 * kMiB}, {"b", 4 * kMiB, 9 * kMiB}, {"b", 1, 0}});
  REQUIRE(sentences.size() == 1);
  CHECK_THAT(sentences[0], Catch::StartsWith("the ranks on b need 8.00 MiB, 7.00 MiB are available"));
}
