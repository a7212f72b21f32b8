// RANKS 1 2 4
// Which library carries device tensors: what is asked for, what there is, and that all ranks agree.
#include "caravan/comm/device_comm.h"

#include <array>
#include <catch2/catch.hpp>
#include <cstdlib>

#include "caravan/core/error.h"
#include "tests/support/fake_nccl.h"
#include "tests/support/group_kinds.h"

using namespace caravan;
using namespace caravan::test;

namespace {

/// The choice with NCCL at `nccl` and the device `gpu` of this rank.
DeviceComm choose(CommBackend wanted, const std::string& nccl, const std::string& gpu) {
  setenv("CARAVAN_NCCL", nccl.c_str(), 1);
  const auto world = MpiCommunicator::over_world();
  return choose_device_comm(wanted, *world, gpu);
}

std::string own_gpu() {
  return fmt::format("gpu {}", MpiCommunicator::over_world()->rank());
}

}  // namespace

TEST_CASE("NCCL is taken where every rank has it, else MPI with the reason", "[comm][choice]") {
  const auto world = MpiCommunicator::over_world();
  const std::string gpu = own_gpu();
  const DeviceComm found = choose(CommBackend::kAuto, fake_nccl_file(), gpu);
  if (world->size() == 1) {
    CHECK(found.nccl == nullptr);
    CHECK(found.description == "one rank");
    return;
  }
  REQUIRE(found.nccl != nullptr);
  CHECK(found.description == fmt::format("NCCL 2.28.9 ({})", fake_nccl_file()));
  CHECK(choose(CommBackend::kMpi, fake_nccl_file(), gpu).description == "MPI through pinned host memory");

  // The last rank has none.
  const int last = world->size() - 1;
  const std::string place = world->rank() == last ? "/nowhere/libnccl.so.2" : fake_nccl_file();
  const DeviceComm without = choose(CommBackend::kAuto, place, gpu);
  CHECK(without.nccl == nullptr);
  CHECK(without.description ==
        fmt::format("MPI through pinned host memory (rank {} found no NCCL that can be used; tried "
                    "/nowhere/libnccl.so.2 (no such file))",
                    last));
  CHECK_THROWS_WITH(
      choose(CommBackend::kNccl, place, gpu),
      Catch::StartsWith(fmt::format("comm.backend is nccl, but rank {} found no NCCL", last)) &&
          Catch::Contains("set CARAVAN_NCCL to libnccl.so.2 or its folder, or comm.backend to mpi"));
  // Another version.
  setenv("FAKE_NCCL_VERSION", world->rank() == last ? "21900" : "22809", 1);
  CHECK_THROWS_WITH(choose(CommBackend::kNccl, fake_nccl_file(), gpu),
                    Catch::Contains(fmt::format("rank 0 has NCCL 2.28.9 and rank {} has 2.19.0", last)) &&
                        Catch::Contains(": all ranks need one version"));
  unsetenv("FAKE_NCCL_VERSION");
}

TEST_CASE("ranks that share a GPU go over MPI, or look like ranks of different machines", "[comm][choice]") {
  const auto world = MpiCommunicator::over_world();
  if (world->size() == 1) {
    return;
  }
  unsetenv("NCCL_HOSTID");
  const DeviceComm by_itself = choose(CommBackend::kAuto, fake_nccl_file(), "the only GPU");
  CHECK(by_itself.nccl == nullptr);
  CHECK_THAT(by_itself.description, Catch::Contains("ranks share a GPU"));
  CHECK(std::getenv("NCCL_HOSTID") == nullptr);
  const std::string own = own_gpu();
  const std::string gpu = world->rank() < 2 ? "first" : own;  // ranks 0 and 1 share one
  const DeviceComm asked = choose(CommBackend::kNccl, fake_nccl_file(), gpu);
  REQUIRE(asked.nccl != nullptr);
  CHECK_THAT(asked.description, Catch::EndsWith(", ranks share a GPU"));
  const char* host = std::getenv("NCCL_HOSTID");
  if (world->rank() < 2) {
    REQUIRE(host != nullptr);
    CHECK(std::string(host) == fmt::format("caravan-rank-{}", world->rank()));
  } else {
    CHECK(host == nullptr);
  }
  unsetenv("NCCL_HOSTID");
}

TEST_CASE("NCCL is not told to begin operations in the host's order, which pipelines do not keep to",
          "[comm][choice]") {
  if (MpiCommunicator::over_world()->size() == 1) {
    return;
  }
  unsetenv("NCCL_LAUNCH_ORDER_IMPLICIT");
  ThreadedDevice device;
  fake_nccl();  // sets its streams
  const DeviceComm comm = choose(CommBackend::kNccl, fake_nccl_file(), own_gpu());
  REQUIRE(comm.nccl != nullptr);
  const auto group = make_device_group(MpiCommunicator::over_world(), device, comm);
  group->prepare_messages(std::array{0, 1});
  CHECK(std::getenv("NCCL_LAUNCH_ORDER_IMPLICIT") == nullptr);

  // What would hang with it: two messages are left on the way, and what is asked for after them comes first.
  // Rank 1 takes them only when its own has been taken.
  const int rank = group->rank();
  Placed<float> first(&device, origin_matrix<float>(rank, 60, 10));
  Placed<float> second(&device, origin_matrix<float>(rank + 10, 60, 10));
  Placed<float> gradient(&device, origin_matrix<float>(rank + 20, 60, 10));
  if (rank == 0) {
    Pending one = group->start_send(first.view(), 1, 0);
    Pending two = group->start_send(second.view(), 1, 0);
    group->receive(gradient.view(), 1, 1);
    one.wait();
    two.wait();
    CHECK(gradient.fetched().values == origin_matrix<float>(21, 60, 10).values);
  } else if (rank == 1) {
    group->send(gradient.view(), 0, 1);
    group->receive(first.view(), 0, 0);
    group->receive(second.view(), 0, 0);
    CHECK(first.fetched().values == origin_matrix<float>(0, 60, 10).values);
    CHECK(second.fetched().values == origin_matrix<float>(10, 60, 10).values);
  }
}

TEST_CASE("the key comes before COMM_BACKEND, and a contradiction is told", "[comm][choice]") {
  const auto wanted = [](const char* environment, CommBackend key) {
    setenv("COMM_BACKEND", environment, 1);
    WantedCommBackend result = wanted_comm_backend(key);
    unsetenv("COMM_BACKEND");
    return result;
  };
  CHECK(wanted("", CommBackend::kAuto).backend == CommBackend::kAuto);
  CHECK(wanted("mpi", CommBackend::kAuto).backend == CommBackend::kMpi);
  CHECK(wanted("auto", CommBackend::kNccl).backend == CommBackend::kNccl);
  CHECK(wanted("nccl", CommBackend::kNccl).contradiction.empty());
  const WantedCommBackend both = wanted("nccl", CommBackend::kMpi);
  CHECK(both.backend == CommBackend::kMpi);
  CHECK(both.contradiction == "comm.backend is mpi, COMM_BACKEND is nccl: the key holds");
  setenv("COMM_BACKEND", "nvshmem", 1);
  CHECK_THROWS_WITH(wanted_comm_backend(CommBackend::kMpi),
                    "COMM_BACKEND is 'nvshmem'; tensors travel by nccl or mpi: set it to auto, nccl or mpi");
  unsetenv("COMM_BACKEND");
}

TEST_CASE("the group that is made serves host memory and the device", "[comm][choice]") {
  for (const CommBackend wanted : {CommBackend::kNccl, CommBackend::kMpi}) {
    ThreadedDevice device;
    fake_nccl();  // sets its streams
    const DeviceComm comm = choose(wanted, fake_nccl_file(), own_gpu());
    auto host = MpiCommunicator::over_world();
    host->set_name("world");
    const auto group = make_device_group(std::move(host), device, comm);
    Placed<float> values(&device, OwnedMatrix<float>(3, 10, 1.0F));
    group->all_reduce(values.view());
    CHECK(values.fetched().values[0] == static_cast<float>(group->size()));
    CHECK(group->all_reduce_value(1.0) == group->size());
    CHECK(group->serves(device.device()));
    if (group->size() > 1) {
      CHECK(group->name() == "world");
    }
  }
}
