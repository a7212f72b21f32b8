// RANKS 1 2 4
#include "src/app/failure.h"

#include <fmt/format.h>

#include <catch2/catch.hpp>

#include "caravan/comm/mpi_session.h"

using namespace caravan;
using namespace caravan::app;

namespace {

Communicator& world() {
  return MpiSession::current().world();
}

}  // namespace

TEST_CASE("agree goes on where no rank fails", "[app][failure]") {
  int calls = 0;
  agree([&] { ++calls; });
  CHECK(calls == 1);
  CHECK(world().all_reduce_value(std::int64_t{1}) == world().size());
}

TEST_CASE("a failure of all ranks is one message with the usage code", "[app][failure]") {
  const auto work = [] { throw ConfigError("optimizer.lr: is -1"); };
  if (world().size() == 1) {
    CHECK_THROWS_AS(agree(work), ConfigError);
    return;
  }
  try {
    agree(work);
    FAIL("agree returned");
  } catch (const AgreedError& error) {
    CHECK(std::string(error.what()) == "optimizer.lr: is -1");
    CHECK(error.exit_code() == kExitUsage);
    CHECK(report_failure(error) == (world().rank() == 0 ? kExitUsage : 0));
  }
}

TEST_CASE("no two of many ranks report at the same moment", "[app][failure]") {
  CHECK(head_start_milliseconds(0) == 0);
  for (int rank = 1; rank < 900; ++rank) {
    CHECK(head_start_milliseconds(rank) >= head_start_milliseconds(rank - 1) + 20);
  }
  CHECK(head_start_milliseconds(1000000) == 20000);
}

TEST_CASE("a failure of some ranks stops every rank and names the lowest", "[app][failure]") {
  if (world().size() == 1) {
    return;
  }
  const int last = world().size() - 1;
  try {
    agree([&] {
      if (world().rank() >= last) {
        throw IoError(fmt::format("file{}: cannot be opened", world().rank()));
      }
    });
    FAIL("agree returned");
  } catch (const AgreedError& error) {
    CHECK(std::string(error.what()) == fmt::format("rank {}: file{}: cannot be opened", last, last));
    CHECK(error.exit_code() == kExitFailure);
  }
  CHECK(world().all_reduce_value(std::int64_t{1}) == world().size());
}
