#include "caravan/comm/self_communicator.h"

#include <catch2/catch.hpp>
#include <vector>

#include "caravan/comm/mpi_communicator.h"
#include "caravan/comm/mpi_session.h"
#include "caravan/core/error.h"
#include "tests/support/origin_data.h"

using namespace caravan;
using namespace caravan::test;

TEST_CASE("a group of one leaves reduced and broadcast tensors as they are", "[comm][self]") {
  SelfCommunicator group;
  auto values = origin_matrix<float>(3, 4, 10);
  group.all_reduce(values.view());
  group.broadcast(values.view(), 0);
  group.barrier();
  REQUIRE(values.values == origin_matrix<float>(3, 4, 10).values);
  REQUIRE(group.all_reduce_value(2.5, ReduceOp::kMax) == 2.5);
  REQUIRE(group.rank() == 0);
  REQUIRE(group.size() == 1);
}

TEST_CASE("a group of one copies its part unless it is in place already", "[comm][self]") {
  SelfCommunicator group;
  auto mine = origin_matrix<float>(3, 4, 10);
  OwnedMatrix<float> whole(4, 10, -1.0F);
  const std::vector<TensorView> parts = {whole.view()};
  group.gatherv(mine.view(), parts, 0);
  REQUIRE(whole.values == mine.values);
  group.gatherv(whole.view(), parts, 0);
  REQUIRE(whole.values == mine.values);
  OwnedMatrix<float> back(4, 10, -1.0F);
  group.scatterv(parts, back.view(), 0);
  REQUIRE(back.values == mine.values);
  OwnedMatrix<float> round(4, 10, -1.0F);
  group.send_receive(mine.view(), 0, round.view(), 0);
  REQUIRE(round.values == mine.values);
}

TEST_CASE("a group of one gathers and scatters its own part", "[comm][self]") {
  SelfCommunicator group;
  auto mine = origin_matrix<float>(3, 4, 10);
  OwnedMatrix<float> whole(4, 10, -1.0F);
  group.all_gather(mine.view(), whole.view());
  REQUIRE(whole.values == mine.values);
  OwnedMatrix<float> back(4, 10, -1.0F);
  group.start_reduce_scatter(whole.view(), back.view()).wait();
  REQUIRE(back.values == mine.values);
  group.start_all_reduce(back.view()).wait();
  group.progress();
  REQUIRE(back.values == mine.values);
  REQUIRE_THROWS_AS(group.start_receive(back.view(), 0, 0), InternalError);
}

TEST_CASE("a group of one moves no bytes", "[comm][self]") {
  SelfCommunicator group;
  auto values = origin_matrix<float>(3, 4, 10);
  const std::vector<TensorView> parts = {values.view()};
  group.all_reduce(values.view());
  group.gatherv(values.view(), parts, 0);
  REQUIRE(group.traffic().total().calls == 2);
  REQUIRE(group.traffic().total().library_calls == 0);
  REQUIRE(group.traffic().total().sent_bytes == 0);
  REQUIRE(group.traffic().total().received_bytes == 0);
}

TEST_CASE("strings pass through a group of one", "[comm][self]") {
  SelfCommunicator group;
  std::string text = "one";
  group.broadcast_bytes(text, 0);
  REQUIRE(text == "one");
  REQUIRE(group.gather_bytes(text, 0) == std::vector<std::string>{"one"});
  REQUIRE(group.gather_bytes("", 0) == std::vector<std::string>{""});
}

TEST_CASE("a group of one holds every caller to the same contract", "[comm][self]") {
  SelfCommunicator group;
  OwnedMatrix<float> values(4, 10, 0.0F);
  OwnedMatrix<std::int16_t> whole_numbers(2, 2, 0);
  REQUIRE_THROWS_AS(group.send(values.view(), 0, 0), InternalError);
  REQUIRE_THROWS_AS(group.receive(values.view(), 1, 0), InternalError);
  REQUIRE_THROWS_AS(group.broadcast(values.view(), 1), InternalError);
  REQUIRE_THROWS_AS(group.all_reduce(whole_numbers.view()), CommError);
  REQUIRE_THROWS_AS(group.gatherv(values.view(), {}, 0), InternalError);
  REQUIRE_THROWS_AS(group.split(-1, 0), InternalError);
  REQUIRE(group.split(3, 0)->size() == 1);
}

TEST_CASE("outside mpirun the session is one rank and starts no MPI", "[comm][mpi_session]") {
  REQUIRE_FALSE(MpiSession::under_mpirun());
  const MpiSession& session = MpiSession::current();
  REQUIRE(MpiSession::current().world().size() == 1);
  REQUIRE(session.local_rank() == 0);
  REQUIRE(session.local_size() == 1);
  REQUIRE(launch_place().size == 1);
  REQUIRE_THROWS_WITH(MpiCommunicator::over_world(), Catch::Contains("needs an MpiSession, and mpirun"));
}
