#include "caravan/train/progress.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "caravan/core/error.h"
#include "caravan/core/log.h"

using namespace caravan;

namespace {

/// A console whose clock stands still between steps.
struct FakeConsole {
  double time = 100.0;
  std::string raw;
  std::vector<std::string> lines;

  ProgressOptions options(ProgressStyle style) {
    ProgressOptions result;
    result.style = style;
    result.now = [this] { return time; };
    result.write_raw = [this](std::string_view text) { raw += text; };
    result.write_line = [this](const std::string& line) { lines.push_back(line); };
    return result;
  }
};

StepRecord step_of(std::int64_t step, double loss = 2.0) {
  StepRecord record;
  record.step = step;
  record.loss = loss;
  record.tokens = 50;
  return record;
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) {
    ++found;
  }
  return found;
}

struct ScopedEnvironment {
  explicit ScopedEnvironment(const char* value) { ::setenv("CARAVAN_PROGRESS", value, 1); }
  ~ScopedEnvironment() { ::unsetenv("CARAVAN_PROGRESS"); }
};

}  // namespace

TEST_CASE("a terminal line is renewed at most five times per second", "[train][progress]") {
  FakeConsole console;
  Progress progress(console.options(ProgressStyle::kTerminal));
  progress.begin("round 1/2", 200);
  for (std::int64_t step = 1; step <= 200; ++step) {
    console.time += 0.01;
    progress.on_step(step_of(step));
  }
  CHECK(count(console.raw, "\r\x1b[Kround 1/2  step ") >= 9);
  CHECK(count(console.raw, "\r\x1b[Kround 1/2  step ") <= 11);
  CHECK(count(console.raw, "\n") == 0);
  CHECK(console.lines.empty());
}

TEST_CASE("a terminal line shows rate and time left", "[train][progress]") {
  FakeConsole console;
  Progress progress(console.options(ProgressStyle::kTerminal));
  progress.begin("round 1/2", 100);
  console.time += 0.5;
  progress.on_step(step_of(1, 2.34567));
  CHECK(console.raw == "\r\x1b[Kround 1/2  step 1/100    1%  loss 2.3457  100 tokens/s  0:50 left");
}

TEST_CASE("the rate is that of the last half minute", "[train][progress]") {
  FakeConsole console;
  Progress progress(console.options(ProgressStyle::kTerminal));
  progress.begin("x", 1000);
  for (std::int64_t step = 1; step <= 50; ++step) {
    console.time += 10.0;
    progress.on_step(step_of(step));
  }
  for (std::int64_t step = 51; step <= 100; ++step) {
    console.time += 1.0;
    console.raw.clear();
    progress.on_step(step_of(step));
  }
  CHECK_THAT(console.raw, Catch::Contains(" 50 tokens/s  15:00 left"));
}

TEST_CASE("a terminal line is cut to the terminal's width by characters", "[train][progress]") {
  FakeConsole console;
  ProgressOptions options = console.options(ProgressStyle::kTerminal);
  options.columns = 5;
  Progress progress(std::move(options));
  progress.begin("größte", 10);
  progress.on_step(step_of(1));
  CHECK(console.raw == "\r\x1b[Kgrößt");
}

TEST_CASE("a log message takes the terminal line away first, once", "[train][progress]") {
  FakeConsole console;
  {
    Progress progress(console.options(ProgressStyle::kTerminal));
    progress.begin("x", 10);
    progress.on_step(step_of(1));
    console.raw.clear();
    log::info("progress test: a message between two progress lines");
    log::info("progress test: another one");
    CHECK(console.raw == "\r\x1b[K");
  }
  console.raw.clear();
  log::info("progress test: a message after the last progress line");
  CHECK(console.raw.empty());
}

TEST_CASE("a batch log gets the first step, a line per interval and the end", "[train][progress]") {
  FakeConsole console;
  Progress progress(console.options(ProgressStyle::kPlain));
  progress.begin("round 1/2", 25);
  for (std::int64_t step = 1; step <= 25; ++step) {
    console.time += 1.0;
    progress.on_step(step_of(step, static_cast<double>(step)));
  }
  progress.end();
  progress.end();
  CHECK(console.raw.empty());
  CHECK(console.lines ==
        std::vector<std::string>{"round 1/2  step 1/25    4%  loss 1.0000  50 tokens/s  0:24 left",
                                 "round 1/2  step 11/25   44%  loss 11.0000  50 tokens/s  0:14 left",
                                 "round 1/2  step 21/25   84%  loss 21.0000  50 tokens/s  0:04 left",
                                 "round 1/2: 25 steps in 0:25, mean loss 13.0000, 50 tokens/s"});
}

TEST_CASE("beginning a phase closes the one before", "[train][progress]") {
  FakeConsole console;
  Progress progress(console.options(ProgressStyle::kPlain));
  progress.begin("round 1/2", 1);
  progress.begin("round 2/2", 1);
  CHECK(console.lines == std::vector<std::string>{"round 1/2: 0 steps in 0:00"});
}

TEST_CASE("an evaluation is a line of its own", "[train][progress]") {
  FakeConsole console;
  Progress progress(console.options(ProgressStyle::kPlain));
  progress.on_evaluation({2, 1.5, 4.4816890703380645});
  CHECK(console.lines == std::vector<std::string>{"round 2: held-out loss 1.5000, perplexity 4.482"});
}

TEST_CASE("a silent rank writes nothing", "[train][progress]") {
  FakeConsole console;
  Progress progress(console.options(ProgressStyle::kOff));
  progress.begin("x", 1);
  progress.on_step(step_of(1));
  progress.on_evaluation({0, 1.0, 2.0});
  progress.end();
  CHECK(console.raw.empty());
  CHECK(console.lines.empty());
}

TEST_CASE("a rank that does not speak has no progress", "[train][progress]") {
  const ScopedEnvironment wish("terminal");
  log::configure(1, 2, "0");
  CHECK(progress_style() == ProgressStyle::kOff);
  log::configure(0, 1, "");
  CHECK(progress_style() == ProgressStyle::kTerminal);
}

TEST_CASE("CARAVAN_PROGRESS chooses the style and refuses other words", "[train][progress]") {
  {
    const ScopedEnvironment wish("plain");
    CHECK(progress_style() == ProgressStyle::kPlain);
  }
  {
    const ScopedEnvironment wish("off");
    CHECK(progress_style() == ProgressStyle::kOff);
  }
  const ScopedEnvironment wish("fancy");
  CHECK_THROWS_AS(progress_style(), ConfigError);
}

TEST_CASE("durations are written as a clock shows them", "[train][progress]") {
  CHECK(format_duration(0.4) == "0:00");
  CHECK(format_duration(59.6) == "1:00");
  CHECK(format_duration(754.0) == "12:34");
  CHECK(format_duration(3723.0) == "1:02:03");
  CHECK(format_duration(-1.0) == "?");
  CHECK(format_duration(std::numeric_limits<double>::quiet_NaN()) == "?");
  CHECK(format_duration(std::numeric_limits<double>::infinity()) == "?");
}
