// LABELS slow
// TIMEOUT 1800
// The memory promise: a file far larger than memory should be trains shuffled with the loader under 300 MB.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>

#include "caravan/core/clock.h"
#include "caravan/core/counter_rng.h"
#include "caravan/data/batch_loader.h"
#include "support/data_files.h"
#include "support/shared_files.h"

using namespace caravan;
using caravan::test::ByteEncoder;
using caravan::test::TemporaryFolder;

namespace {

constexpr std::int64_t kMegabyte = 1000000;
constexpr std::int64_t kLimitBytes = 300 * kMegabyte;

std::int64_t resident_bytes() {
  std::int64_t total = 0;
  std::int64_t resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

// Documents as JSON lines: about 2 kB each in the first half, 20 to 100 kB in the second, so that one rank's
// part holds far longer ones than the average tells. Returns how many.
std::int64_t write_documents(const std::string& path, std::int64_t bytes) {
  std::string words;
  const CounterRng rng(11, stream_id("large file"));
  for (std::uint64_t i = 0; words.size() < 200000; ++i) {
    words.append(1 + rng.below(i, 9), static_cast<char>('a' + i % 26)).push_back(' ');
  }
  std::ofstream out(path, std::ios::binary);
  std::int64_t written = 0;
  std::int64_t documents = 0;
  for (; written < bytes; ++documents) {
    const auto draw = static_cast<std::uint64_t>(documents) * 2;
    const bool is_long = written > bytes / 2;
    const std::size_t length = is_long ? 20000 + rng.below(draw, 80000) : 20 + rng.below(draw, 4000);
    const std::string_view text = std::string_view(words).substr(rng.below(draw + 1, 100000), length);
    out << "{\"text\": \"" << text << "\", \"number\": " << documents << "}\n";
    written += static_cast<std::int64_t>(text.size()) + 30;
  }
  REQUIRE(out.good());
  return documents;
}

}  // namespace

// CARAVAN_LARGE_FILE_MB: another size for a quick run.
TEST_CASE("a 5 GB file is read shuffled in less than 300 MB", "[data][loader][large]") {
  const char* size = std::getenv("CARAVAN_LARGE_FILE_MB");
  const std::int64_t bytes = (size != nullptr ? std::atoll(size) : 5000) * kMegabyte;
  const TemporaryFolder folder(std::filesystem::current_path());  // /tmp may be memory
  const auto free_bytes = std::filesystem::space(folder.path("")).available;
  if (static_cast<std::int64_t>(free_bytes) < bytes + 3000 * kMegabyte) {
    caravan::test::something_was_skipped() = true;
    std::cout << "SKIPPED: needs " << bytes / kMegabyte + 3000 << " MB of free disk, there are "
              << free_bytes / kMegabyte << "\n";
    return;
  }
  const std::string path = folder.path("large.jsonl");
  const std::int64_t documents = write_documents(path, bytes);
  const std::int64_t before = resident_bytes();
  const StopWatch watch;
  const Dataset dataset({path});
  const double index_seconds = watch.seconds();
  REQUIRE(dataset.size() == documents);
  std::cout << "index: " << static_cast<double>(bytes) / index_seconds / 1e6 << " MB/s, "
            << (resident_bytes() - before) / kMegabyte << " MB\n";
  CHECK(resident_bytes() - before < kLimitBytes);

  const ByteEncoder encoder;
  struct Case {
    std::int64_t max_seq_len = 0;
    SamplePart part;
  };
  const std::int64_t long_documents = documents / 40;
  for (const auto& [max_seq_len, part] :
       {Case{512, {0, documents, 0}}, Case{512, {documents - long_documents, documents, 1}},
        Case{8192, {documents - long_documents, documents, 1}}}) {
    BatchLoader loader(dataset, &encoder, part,
                       {.batch_size = 8, .max_seq_len = max_seq_len, .shuffle = true, .seed = 42});
    std::int64_t highest = 0;
    Batch batch;
    for (const std::int64_t start : {std::int64_t{0}, *loader.batches_per_epoch() / 2}) {
      const StopWatch seek_watch;
      loader.seek(0, start);
      for (int i = 0; i < 1500 && loader.next(batch); ++i) {
        if (i == 0) {
          std::cout << "max_seq_len " << max_seq_len << ": first batch from " << start << " after "
                    << seek_watch.seconds() << " s\n";
        }
        highest = std::max(highest, resident_bytes() - before);
      }
    }
    std::cout << "max_seq_len " << max_seq_len << ": " << highest / kMegabyte << " MB, "
              << loader.shuffle_slots() << " samples in the shuffle buffer\n";
    CHECK(highest < kLimitBytes);
  }
}
