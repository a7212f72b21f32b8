#include "caravan/io/hdf5_file.h"

#include <catch2/catch.hpp>

#include "caravan/core/atomic_file.h"
#include "caravan/core/error.h"
#include "support/temporary_folder.h"

using namespace caravan;
using namespace caravan::test;

TEST_CASE("columns of numbers and of text read back as they were written", "[io][hdf5]") {
  const TemporaryFolder folder;
  const std::vector<std::string> names = {"layers.0", "", "größer"};
  Hdf5File made = Hdf5File::create("a.h5");
  made.create_group("/rows");
  made.write("/rows/name", names);
  made.write("/rows/count", std::vector<std::int64_t>{1, 2, 3});
  made.write("/rows/none", std::vector<std::string>{});
  write_file_atomically(folder / "a.h5", made.bytes());

  const Hdf5File read = Hdf5File::open(folder / "a.h5");
  CHECK(read.read_text("/rows/name") == names);
  CHECK(read.read_text("/rows/none").empty());
  CHECK(read.read_int64("/rows/count") == std::vector<std::int64_t>{1, 2, 3});
  CHECK_THROWS_WITH(read.read_text("/rows/count"), Catch::Contains("/rows/count does not hold texts"));
  CHECK_THROWS_AS(read.read_int64("/rows/name"), IoError);
  CHECK_THROWS_AS(read.read_text("/rows/absent"), IoError);
}
