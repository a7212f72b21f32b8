#include "caravan/comm/counting_communicator.h"

#include "caravan/core/error.h"

namespace caravan {

CountingCommunicator::CountingCommunicator(int rank, int size) : rank_(rank), size_(size) {
  CARAVAN_CHECK(rank >= 0 && rank < size, "rank {} of a counted group of {}", rank, size);
}

std::unique_ptr<Communicator> CountingCommunicator::do_split(int color, int key) {
  fail<InternalError>(
      "split with colour {}, key {}: a counted group does not know the others' colours; construct the part",
      color, key);
}

}  // namespace caravan
