#include "caravan/io/results_file.h"

#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <sstream>
#include <thread>

#include "caravan/core/counter_rng.h"
#include "caravan/core/error.h"
#include "caravan/io/hdf5_file.h"
#include "support/results_samples.h"
#include "support/temporary_folder.h"

using namespace caravan;
using caravan::test::sample_attributes;
using caravan::test::sample_evaluation;
using caravan::test::sample_step;
using caravan::test::TemporaryFolder;

namespace {

ResultsContent sample_content(std::int64_t rounds, std::int64_t steps) {
  ResultsContent content{sample_attributes(), {}, {}};
  for (std::int64_t round = 0; round < rounds; ++round) {
    content.history.push_back(sample_evaluation(round));
  }
  for (std::int64_t step = 1; step <= steps; ++step) {
    content.steps.push_back(sample_step(step));
  }
  return content;
}

void write_content(const std::string& path, const ResultsContent& content) {
  ResultsFile file = ResultsFile::create(path, content.attributes);
  for (const StepRecord& step : content.steps) {
    file.append_step(step);
  }
  for (const HistoryRecord& row : content.history) {
    file.append_history(row.round, row.loss, row.perplexity);
  }
}

/// A file of the right schema but for what `change` does after the attributes.
template <class Change>
void write_odd_file(const std::string& path, Change&& change) {
  Hdf5File file = Hdf5File::create(path);
  for (const char* name : {"world_size", "rounds", "local_epochs", "seed"}) {
    file.set_attribute(name, std::int64_t{1});
  }
  file.set_attribute("lr", 0.1);
  file.set_attribute("enable_swapping", false);
  for (const char* name :
       {"dataset", "mode", "dtype", "config", "commit", "versions", "hosts", "start_time", "end_time"}) {
    file.set_attribute(name, "text");
  }
  file.create_group("/history");
  file.create_group("/steps");
  change(file);
  test::write_text(path, file.bytes());
}

/// A process that adds a step and a round to the file again and again until it is killed.
class WriterProcess {
 public:
  explicit WriterProcess(const std::string& path) : id_(::fork()) {
    if (id_ == 0) {
      write_until_killed(path);
    }
  }
  WriterProcess(const WriterProcess&) = delete;
  WriterProcess& operator=(const WriterProcess&) = delete;
  ~WriterProcess() { kill(); }
  void kill() {
    if (id_ > 0) {
      ::kill(id_, SIGKILL);
      ::waitpid(id_, nullptr, 0);
    }
    id_ = -1;
  }

 private:
  [[noreturn]] static void write_until_killed(const std::string& path) {
    try {
      ResultsFile file = ResultsFile::reopen(path);
      for (std::int64_t step = 1;; ++step) {
        file.append_step(sample_step(step));
        file.append_history(step, 1.0, 2.0);
      }
    } catch (const std::exception& error) {
      std::fprintf(stderr, "the writing process failed: %s\n", error.what());
    }
    std::_Exit(1);
  }

  pid_t id_;
};

std::string error_of_reading(const std::string& path) {
  try {
    read_results(path);
  } catch (const IoError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a results file reads back as it was written", "[io][results]") {
  const TemporaryFolder folder;
  ResultsContent content = sample_content(6, 1500);
  content.steps[7].loss = std::numeric_limits<double>::infinity();
  write_content(folder / "results.h5", content);
  CHECK(read_results(folder / "results.h5") == content);
}

TEST_CASE("a new results file is readable before anything is appended", "[io][results]") {
  const TemporaryFolder folder;
  const ResultsFile file = ResultsFile::create(folder / "results.h5", sample_attributes());
  CHECK(read_results(folder / "results.h5") == sample_content(0, 0));
}

TEST_CASE("creating over an existing results file is refused and leaves it alone", "[io][results]") {
  const TemporaryFolder folder;
  write_content(folder / "results.h5", sample_content(2, 3));
  CHECK_THROWS_AS(ResultsFile::create(folder / "results.h5", sample_attributes()), IoError);
  CHECK(read_results(folder / "results.h5") == sample_content(2, 3));
}

TEST_CASE("a round is on disk when append_history returns, with the steps before it", "[io][results]") {
  const TemporaryFolder folder;
  ResultsFile file = ResultsFile::create(folder / "results.h5", sample_attributes());
  file.append_step(sample_step(1));
  CHECK(read_results(folder / "results.h5").steps.empty());
  const HistoryRecord row = sample_evaluation(0);
  file.append_history(row.round, row.loss, row.perplexity);
  CHECK(read_results(folder / "results.h5") == sample_content(1, 1));
}

TEST_CASE("steps reach the disk within a few seconds without a round", "[io][results]") {
  const TemporaryFolder folder;
  CHECK(kResultsFlushSeconds <= 3.0);
  const double interval = 0.02;
  ResultsFile file = ResultsFile::create(folder / "results.h5", sample_attributes(), interval);
  file.append_step(sample_step(1));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  file.append_step(sample_step(2));
  CHECK(read_results(folder / "results.h5").steps.size() == 2);
}

TEST_CASE("finish sets the end time and a reopened file has none", "[io][results]") {
  const TemporaryFolder folder;
  {
    ResultsFile file = ResultsFile::create(folder / "results.h5", sample_attributes());
    file.finish("2031-05-04T19:00:00Z");
  }
  CHECK(read_results(folder / "results.h5").attributes.end_time == "2031-05-04T19:00:00Z");
  CHECK(ResultsFile::reopen(folder / "results.h5").content().attributes.end_time.empty());
}

TEST_CASE("reopen, truncate and append give the file of a run that was never interrupted", "[io][results]") {
  const TemporaryFolder folder;
  write_content(folder / "results.h5", sample_content(3, 25));
  {
    ResultsFile file = ResultsFile::reopen(folder / "results.h5");
    file.truncate(2, 20);
    CHECK(read_results(folder / "results.h5") == sample_content(2, 20));
    for (std::int64_t step = 21; step <= 30; ++step) {
      file.append_step(sample_step(step));
    }
    const HistoryRecord row = sample_evaluation(2);
    file.append_history(row.round, row.loss, row.perplexity);
    CHECK_THROWS_AS(file.truncate(4, 0), InternalError);
  }
  CHECK(read_results(folder / "results.h5") == sample_content(3, 30));
}

TEST_CASE("the destructor writes the steps since the last flush", "[io][results]") {
  const TemporaryFolder folder;
  {
    ResultsFile file = ResultsFile::create(folder / "results.h5", sample_attributes());
    ResultsFile moved = std::move(file);
    moved.append_step(sample_step(1));
  }
  CHECK(read_results(folder / "results.h5") == sample_content(0, 1));
}

TEST_CASE("a run killed with SIGKILL at any moment leaves a readable file", "[io][results]") {
  const TemporaryFolder folder;
  const std::string path = folder / "results.h5";
  for (int attempt = 0; attempt < 40; ++attempt) {
    std::filesystem::remove(path);
    { const ResultsFile file = ResultsFile::create(path, sample_attributes()); }
    WriterProcess writer(path);
    // The kill comes during one of the flushes after the first; until then the file is read while it changes.
    const StopWatch waiting;
    while (read_results(path).steps.empty()) {
      REQUIRE(waiting.seconds() < 60.0);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    std::this_thread::sleep_for(std::chrono::microseconds(500 * attempt));
    writer.kill();
    const ResultsContent content = read_results(path);
    REQUIRE_FALSE(content.steps.empty());
    REQUIRE(content.history.size() <= content.steps.size());
    REQUIRE(content.history.size() + 1 >= content.steps.size());
    for (std::size_t i = 0; i < content.steps.size(); ++i) {
      REQUIRE(content.steps[i] == sample_step(static_cast<std::int64_t>(i) + 1));
    }
  }
}

TEST_CASE("a file can be read at every moment of the run that writes it", "[io][results]") {
  const TemporaryFolder folder;
  const std::string path = folder / "results.h5";
  { const ResultsFile file = ResultsFile::create(path, sample_attributes()); }
  const WriterProcess writer(path);
  const StopWatch waiting;
  std::size_t rows = 0;
  while (rows < 30) {
    REQUIRE(waiting.seconds() < 60.0);
    const ResultsContent content = read_results(path);
    REQUIRE(content.steps.size() >= rows);
    rows = content.steps.size();
  }
}

TEST_CASE("files that are missing, empty or something else are refused by name", "[io][results]") {
  const TemporaryFolder folder;
  test::write_text(folder / "empty.h5", "");
  test::write_text(folder / "text.h5", "round 0 loss 1.0\n");
  CHECK_THAT(error_of_reading(folder / "nothing.h5"), Catch::Contains("nothing.h5: cannot be read: No such"));
  CHECK_THAT(error_of_reading(folder / "empty.h5"), Catch::Contains("is empty"));
  CHECK_THAT(error_of_reading(folder / "text.h5"), Catch::Contains("file signature not found"));
  CHECK_THAT(error_of_reading(folder.path().string()), Catch::Contains("not a regular file"));
}

TEST_CASE("a file of another schema is refused with the name of what is wrong", "[io][results]") {
  const TemporaryFolder folder;
  const std::string path = folder / "results.h5";
  const std::vector<std::int64_t> integers = {0, 1};
  const std::vector<double> numbers = {1.0, 2.0};
  const auto history = [&](Hdf5File& file) {
    file.write("/history/round", integers);
    file.write("/history/loss", numbers);
    file.write("/history/perplexity", numbers);
  };
  SECTION("a table is missing") {
    write_odd_file(path, history);
    CHECK_THAT(error_of_reading(path), Catch::Contains("/steps/step"));
  }
  SECTION("a column holds the wrong kind of numbers") {
    write_odd_file(path, [&](Hdf5File& file) { file.write("/history/round", numbers); });
    CHECK_THAT(error_of_reading(path), Catch::Contains("/history/round does not hold integers"));
  }
  SECTION("a column is a group") {
    write_odd_file(path, [&](Hdf5File& file) { file.create_group("/history/round"); });
    CHECK_THAT(error_of_reading(path), Catch::Contains("cannot open /history/round"));
  }
  SECTION("an attribute has another type") {
    Hdf5File file = Hdf5File::create(path);
    file.set_attribute("world_size", "four");
    test::write_text(path, file.bytes());
    CHECK_THAT(error_of_reading(path), Catch::Contains("attribute world_size is not a number"));
  }
  SECTION("an attribute is missing") {
    Hdf5File file = Hdf5File::create(path);
    file.set_attribute("world_size", std::int64_t{1});
    test::write_text(path, file.bytes());
    CHECK_THAT(error_of_reading(path), Catch::Contains("attribute lr"));
  }
}

TEST_CASE("columns of unequal length are refused by readers and cut by reopen", "[io][results]") {
  const TemporaryFolder folder;
  const std::string path = folder / "results.h5";
  write_odd_file(path, [](Hdf5File& file) {
    file.write("/history/round", std::vector<std::int64_t>{0, 1, 2});
    file.write("/history/loss", std::vector<double>{3.0, 2.0});
    file.write("/history/perplexity", std::vector<double>{9.0, 8.0, 7.0, 6.0});
    for (const char* name : {"/steps/step", "/steps/tokens"}) {
      file.write(name, std::vector<std::int64_t>{});
    }
    for (const char* name : {"/steps/loss", "/steps/lr", "/steps/grad_norm", "/steps/seconds"}) {
      file.write(name, std::vector<double>{});
    }
  });
  CHECK_THAT(error_of_reading(path), Catch::Contains("/history/loss has 2 rows"));
  const ResultsFile file = ResultsFile::reopen(path);
  CHECK(file.content().history == std::vector<HistoryRecord>{{0, 3.0, 9.0}, {1, 2.0, 8.0}});
}

TEST_CASE("a file cut short anywhere is refused, not read beyond its end", "[io][results]") {
  const TemporaryFolder folder;
  write_content(folder / "results.h5", sample_content(4, 600));
  const std::string bytes = test::read_text(folder / "results.h5");
  const std::size_t seal_bytes = 16;  // without its seal the file is whole
  for (std::size_t length = 0; length < bytes.size() - seal_bytes; length += 397) {
    test::write_text(folder / "cut.h5", std::string_view(bytes).substr(0, length));
    REQUIRE_FALSE(error_of_reading(folder / "cut.h5").empty());
  }
}

TEST_CASE("a file with damaged bytes is refused and never ends the process", "[io][results]") {
  const TemporaryFolder folder;
  write_content(folder / "results.h5", sample_content(4, 20));
  const std::string bytes = test::read_text(folder / "results.h5");
  const CounterRng rng(7, stream_id("damage"));
  int refused = 0;
  for (std::uint64_t attempt = 0; attempt < 2000; ++attempt) {
    std::string damaged = bytes;
    for (std::uint64_t i = 0; i < 1 + attempt % 4; ++i) {
      damaged[rng.below(attempt * 16 + i * 2, bytes.size())] =
          static_cast<char>(rng.below(attempt * 16 + i * 2 + 1, 256));
    }
    test::write_text(folder / "damaged.h5", damaged);
    if (!error_of_reading(folder / "damaged.h5").empty()) {
      ++refused;
      continue;
    }
    // Accepted only where the damage hit nothing but the seal behind the content.
    REQUIRE(read_results(folder / "damaged.h5") == sample_content(4, 20));
  }
  CHECK(refused > 1900);
}

TEST_CASE("inspect names the run, its rounds and its steps", "[io][results]") {
  const TemporaryFolder folder;
  write_content(folder / "results.h5", sample_content(2, 10));
  std::ostringstream out;
  inspect_results_file(folder / "results.h5", out);
  const std::string text = out.str();
  CHECK_THAT(text, Catch::Contains("world size     4, swapping on"));
  CHECK_THAT(text, Catch::Contains("rounds         5 of 2 local epochs"));
  CHECK_THAT(text, Catch::Contains("not yet, or the run was stopped"));
  CHECK_THAT(text, Catch::Contains("    1    1.500000     4.48169"));
  CHECK_THAT(text, Catch::Contains("10 recorded, step 1 to 10"));
  CHECK_THAT(text, Catch::Contains("  seed: 42"));
}

TEST_CASE("a sample file for h5py is written where CARAVAN_SAMPLE_FILE says", "[.][sample]") {
  const char* path = std::getenv("CARAVAN_SAMPLE_FILE");
  REQUIRE(path != nullptr);
  write_content(path, sample_content(6, 1500));
  REQUIRE(read_results(path) == sample_content(6, 1500));
}
