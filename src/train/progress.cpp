#include "caravan/train/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "caravan/core/clock.h"
#include "caravan/core/error.h"
#include "caravan/core/log.h"

namespace caravan {
namespace {

constexpr double kRateWindowSeconds = 30.0;
constexpr double kSampleSpacingSeconds = 0.5;
constexpr std::string_view kClearLine = "\r\x1b[K";

int terminal_columns() {
  struct winsize size {};
  const bool is_known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return is_known ? size.ws_col : 80;
}

/// The first `columns` characters of UTF-8 text.
std::string_view cut(std::string_view text, int columns) {
  int seen = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool begins_character = (static_cast<unsigned char>(text[i]) & 0xC0U) != 0x80U;
    if (begins_character && seen++ == columns) {
      return text.substr(0, i);
    }
  }
  return text;
}

}  // namespace

ProgressStyle progress_style() {
  const char* wish = std::getenv("CARAVAN_PROGRESS");
  const std::string_view style = wish == nullptr ? "" : wish;
  if (!style.empty() && style != "terminal" && style != "plain" && style != "off") {
    fail<ConfigError>("CARAVAN_PROGRESS is '{}'; give terminal, plain or off", style);
  }
  if (!log::is_speaking() || style == "off") {
    return ProgressStyle::kOff;
  }
  if (!style.empty()) {
    return style == "terminal" ? ProgressStyle::kTerminal : ProgressStyle::kPlain;
  }
  const char* terminal = std::getenv("TERM");
  const bool can_clear = terminal != nullptr && std::string_view(terminal) != "dumb";
  return can_clear && ::isatty(STDERR_FILENO) == 1 ? ProgressStyle::kTerminal : ProgressStyle::kPlain;
}

std::string format_duration(double seconds) {
  if (!(seconds >= 0.0) || seconds > 1e9) {
    return "?";
  }
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  if (whole < 3600) {
    return fmt::format("{}:{:02}", whole / 60, whole % 60);
  }
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

ProgressOptions ProgressOptions::for_console() {
  ProgressOptions options;
  options.style = progress_style();
  options.columns = terminal_columns() - 1;  // a full last column wraps on some terminals
  options.now = [watch = StopWatch()] { return watch.seconds(); };
  options.write_raw = [](std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stderr);
    std::fflush(stderr);
  };
  options.write_line = [](const std::string& line) { log::info("{}", line); };
  return options;
}

Progress::Progress(ProgressOptions options) : options_(std::move(options)) {
  if (options_.style == ProgressStyle::kTerminal) {
    log::set_before_message([this] { clear_line(); });
  }
}

Progress::~Progress() {
  if (options_.style == ProgressStyle::kTerminal) {
    log::set_before_message({});
    clear_line();
  }
}

void Progress::begin(std::string label, std::int64_t total) {
  end();
  label_ = std::move(label);
  total_ = total;
  done_ = 0;
  tokens_ = 0.0;
  loss_sum_ = 0.0;
  is_open_ = true;
  has_shown_ = false;
  began_ = options_.now();
  samples_.assign(1, Sample{began_, 0, 0.0});
}

void Progress::on_step(const StepRecord& record) {
  if (options_.style == ProgressStyle::kOff || !is_open_) {
    return;
  }
  ++done_;
  tokens_ += static_cast<double>(record.tokens);
  loss_sum_ += record.loss;
  const double now = options_.now();
  remember(now);
  const bool is_terminal = options_.style == ProgressStyle::kTerminal;
  const double interval = is_terminal ? options_.terminal_interval_seconds : options_.plain_interval_seconds;
  if (has_shown_ && now - shown_at_ < interval) {
    return;
  }
  has_shown_ = true;
  shown_at_ = now;
  const std::string line = status_line(record, now);
  if (is_terminal) {
    options_.write_raw(fmt::format("{}{}", kClearLine, cut(line, options_.columns)));
    has_terminal_line_ = true;
  } else {
    options_.write_line(line);
  }
}

void Progress::on_evaluation(const HistoryRecord& record) {
  if (options_.style != ProgressStyle::kOff) {
    clear_line();
    options_.write_line(fmt::format("{} {}: held-out loss {:.4f}, perplexity {:.4g}",
                                    options_.evaluation_unit, record.round, record.loss, record.perplexity));
  }
}

void Progress::end() {
  if (!std::exchange(is_open_, false) || options_.style == ProgressStyle::kOff) {
    return;
  }
  clear_line();
  const double seconds = options_.now() - began_;
  std::string line =
      fmt::format("{}: {} step{} in {}", label_, done_, done_ == 1 ? "" : "s", format_duration(seconds));
  if (done_ > 0) {
    line += fmt::format(", mean loss {:.4f}", loss_sum_ / static_cast<double>(done_));
  }
  if (seconds > 0.0) {
    line += fmt::format(", {:.0f} tokens/s", tokens_ / seconds);
  }
  options_.write_line(line);
}

std::string Progress::status_line(const StepRecord& record, double now) const {
  const Sample& oldest = samples_.front();
  const double elapsed = now - oldest.time;
  const double share = total_ > 0 ? static_cast<double>(done_) / static_cast<double>(total_) : 1.0;
  std::string line = fmt::format("{}  step {}/{}  {:3.0f}%  loss {:.4f}", label_, done_, total_,
                                 std::floor(100.0 * share), record.loss);
  if (elapsed > 0.0) {
    const double steps_per_second = static_cast<double>(done_ - oldest.done) / elapsed;
    line += fmt::format("  {:.0f} tokens/s  {} left", (tokens_ - oldest.tokens) / elapsed,
                        format_duration(static_cast<double>(total_ - done_) / steps_per_second));
  }
  return line;
}

void Progress::remember(double now) {
  while (samples_.size() > 1 && now - samples_.front().time > kRateWindowSeconds) {
    samples_.pop_front();
  }
  if (now - samples_.back().time >= kSampleSpacingSeconds) {
    samples_.push_back(Sample{now, done_, tokens_});
  }
}

void Progress::clear_line() {
  if (std::exchange(has_terminal_line_, false)) {
    options_.write_raw(kClearLine);
  }
}

}  // namespace caravan
