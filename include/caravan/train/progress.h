// The console during training: one line that renews itself on a terminal, plain lines now and then in a log.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>

#include "caravan/train/metrics.h"

namespace caravan {

enum class ProgressStyle : std::uint8_t { kTerminal, kPlain, kOff };

/// kOff on a rank that does not speak. Else what CARAVAN_PROGRESS says (terminal, plain or off; mpirun hides
/// the terminal from its ranks, so a script on a terminal sets it), else by whether standard error is a
/// terminal. Throws ConfigError for another value of CARAVAN_PROGRESS.
ProgressStyle progress_style();

/// "0:07", "12:34", "1:02:03"; "?" for what is not a finite number of at least 0.
std::string format_duration(double seconds);

struct ProgressOptions {
  ProgressStyle style = ProgressStyle::kPlain;
  std::string evaluation_unit = "round";  // what HistoryRecord::round counts: "step" in synchronous mode
  double terminal_interval_seconds = 0.2;
  double plain_interval_seconds = 10.0;
  int columns = 110;  // longest line on a terminal; a longer one would wrap and stay behind

  std::function<double()> now;                         // seconds since any moment
  std::function<void(std::string_view)> write_raw;     // to the terminal, as it is
  std::function<void(const std::string&)> write_line;  // a whole line of the log

  /// progress_style(), the terminal's width, the steady clock, standard error and log::info.
  static ProgressOptions for_console();
};

/// One at a time in a process: a log message written while a terminal line stands removes that line first.
class Progress final : public MetricsSink {
 public:
  explicit Progress(ProgressOptions options);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() override;

  /// A phase of `total` steps begins; `label` says which ("round 2/5").
  void begin(std::string label, std::int64_t total);
  /// One step of the phase is done.
  void on_step(const StepRecord& record) override;
  /// Prints "round 2: held-out loss ..., perplexity ...".
  void on_evaluation(const HistoryRecord& record) override;
  /// The phase is over: one closing line with its mean loss, rate and duration. Nothing when no phase is
  /// open.
  void end();

 private:
  struct Sample {
    double time = 0.0;
    std::int64_t done = 0;
    double tokens = 0.0;
  };
  std::string status_line(const StepRecord& record, double now) const;
  void remember(double now);
  void clear_line();

  ProgressOptions options_;
  std::string label_;
  std::int64_t total_ = 0;
  std::int64_t done_ = 0;
  double tokens_ = 0.0;
  double loss_sum_ = 0.0;
  double began_ = 0.0;
  double shown_at_ = 0.0;
  bool is_open_ = false;
  bool has_shown_ = false;          // in this phase
  bool has_terminal_line_ = false;  // the cursor stands behind it
  std::deque<Sample> samples_;      // of the last half minute, for the rate
};

}  // namespace caravan
