#include "caravan/comm/counting_communicator.h"

#include <catch2/catch.hpp>

#include "caravan/comm/self_communicator.h"
#include "caravan/core/error.h"

using namespace caravan;

namespace {

TensorView shape_only(const Shape& shape, DType dtype = DType::kFloat32) {
  return {nullptr, dtype, shape, {DeviceKind::kNone, 0}};
}

}  // namespace

TEST_CASE("a counted group counts what MPI would move and needs no memory", "[comm][counting]") {
  CountingCommunicator group(2, 4);
  REQUIRE(group.rank() == 2);
  REQUIRE(group.size() == 4);
  group.all_reduce(shape_only({5, 10}));
  group.start_all_reduce(shape_only({5, 10}), ReduceOp::kMax).wait();
  group.all_gather(shape_only({5, 10}), shape_only({20, 10}));
  group.start_all_gather(shape_only({5, 10}, DType::kInt32), shape_only({20, 10}, DType::kInt32)).wait();
  group.reduce_scatter(shape_only({20, 10}), shape_only({5, 10}));
  group.start_send(shape_only({7}), 3, 0).wait();
  group.start_receive(shape_only({7}), 1, 0).wait();
  group.broadcast(shape_only({6}), 0);
  group.progress();
  const Traffic& traffic = group.traffic();
  CHECK(traffic[Collective::kAllReduce].calls == 2);
  CHECK(traffic[Collective::kAllReduce].sent_bytes == 2 * 200);
  CHECK(traffic[Collective::kAllGather].sent_bytes == 2 * 3 * 200);
  CHECK(traffic[Collective::kAllGather].received_bytes == 2 * 3 * 200);
  CHECK(traffic[Collective::kReduceScatter].sent_bytes == 3 * 200);
  CHECK(traffic[Collective::kPointToPoint].sent_bytes == 28);
  CHECK(traffic[Collective::kPointToPoint].received_bytes == 28);
  CHECK(traffic[Collective::kBroadcast].received_bytes == 24);
  CHECK(traffic.total().library_calls == 0);
}

TEST_CASE("a counted group leaves memory as it is", "[comm][counting]") {
  CountingCommunicator group(0, 2);
  std::vector<float> values = {1.0F, 2.0F, 3.0F, 4.0F};
  const TensorView view(values.data(), DType::kFloat32, {4});
  group.all_reduce(view);
  group.all_gather(view.rows(0, 2), view);
  CHECK(values == std::vector<float>{1.0F, 2.0F, 3.0F, 4.0F});
}

TEST_CASE("a counted group holds every caller to the same contract", "[comm][counting]") {
  CountingCommunicator group(1, 3);
  CHECK_THROWS_AS(group.all_gather(shape_only({4}), shape_only({8})), InternalError);
  CHECK_THROWS_AS(group.all_reduce(shape_only({4}, DType::kInt8)), CommError);
  CHECK_THROWS_AS(group.start_send(shape_only({4}), 1, 0), InternalError);
  CHECK_THROWS_AS(group.all_reduce(shape_only({4, 6}).slice(1, 0, 3)), InternalError);
  CHECK_THROWS_WITH(group.split(0, 0), Catch::Contains("construct the part"));
  CHECK_THROWS_AS(CountingCommunicator(3, 3), InternalError);
}

TEST_CASE("a group of one works on shapes alone", "[comm][self]") {
  SelfCommunicator group;
  group.all_reduce(shape_only({3}));
  group.all_gather(shape_only({3}), shape_only({3}));
  group.reduce_scatter(shape_only({3}), shape_only({3}));
  group.start_all_reduce(shape_only({3})).wait();
  CHECK(group.traffic().total().sent_bytes == 0);
}
