// RANKS 1 2 4
#include "caravan/comm/mpi_session.h"

#include <catch2/catch.hpp>

#include "caravan/core/error.h"

using namespace caravan;

TEST_CASE("the session's world is the whole job", "[comm][mpi_session]") {
  REQUIRE(MpiSession::under_mpirun());
  Communicator& world = MpiSession::current().world();
  REQUIRE(launch_place().rank == world.rank());
  REQUIRE(launch_place().size == world.size());
  REQUIRE(world.all_reduce_value(std::int64_t{1}) == world.size());
}

TEST_CASE("ranks on one machine are numbered there", "[comm][mpi_session]") {
  const MpiSession& session = MpiSession::current();
  REQUIRE(session.local_rank() >= 0);
  REQUIRE(session.local_rank() < session.local_size());
  REQUIRE(session.local_size() <= MpiSession::current().world().size());
}

TEST_CASE("a process has one session", "[comm][mpi_session]") {
  char name[] = "program";
  char* arguments[] = {name, nullptr};
  int argc = 1;
  char** argv = arguments;
  REQUIRE_THROWS_AS(MpiSession(argc, argv), InternalError);
  REQUIRE(MpiSession::exists());
}

// Hidden: tests/integration/test_failing_rank.sh runs these and expects the job to end.
TEST_CASE("rank 1 fails an assertion while the others wait", "[.][fails-on-rank-1]") {
  Communicator& world = MpiSession::current().world();
  INFO("this is what rank 1 adds");
  REQUIRE(world.rank() != 1);
  world.barrier();
}

TEST_CASE("rank 1 throws while the others wait", "[.][throws-on-rank-1]") {
  Communicator& world = MpiSession::current().world();
  if (world.rank() == 1) {
    fail<CommError>("the reason rank 1 gives");
  }
  world.barrier();
}
