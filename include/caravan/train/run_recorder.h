// What a run leaves behind: results.h5, the round log, progress on the console, checkpoints. Lives on rank 0.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "caravan/core/clock.h"
#include "caravan/io/results_file.h"
#include "caravan/io/round_log.h"
#include "caravan/io/run_record.h"
#include "caravan/train/metrics.h"
#include "caravan/train/progress.h"
#include "caravan/train/run_inputs.h"

namespace caravan {

/// What identifies the program and the machines in the results; filled by the application.
struct RunEnvironment {
  std::string commit;
  std::string versions;
  std::string hosts;
  std::string start_time = utc_timestamp();
};

/// What a run is, in the words of whoever runs it: the mode's name, what its history counts, its key.
struct RunIdentity {
  enum class Counts : std::uint8_t { kRounds, kSteps };

  std::string mode;
  Counts counts = Counts::kRounds;
  ExperimentKey experiment;
};

class RunRecorder {
 public:
  /// The rows of results.h5 that belong to what is finished.
  struct ResumePoint {
    std::int64_t history_records = 0;
    std::int64_t step_records = 0;
    std::string results = {};  // the file that holds them; empty: the one in output.dir
  };
  /// Creates the files of a run in inputs.config.output.dir, which has been prepared; with `resume`, goes on
  /// with the results that are there, cut back to the resume point. Throws IoError.
  RunRecorder(const RunInputs& inputs, const RunIdentity& identity, const RunEnvironment& environment,
              const ResumePoint* resume);

  /// Phases and metrics go to all sinks.
  void begin_phase(const std::string& label, std::int64_t total_steps);
  void end_phase();
  void on_step(const StepRecord& record) { sinks_.on_step(record); }
  void on_evaluation(const HistoryRecord& record) { sinks_.on_evaluation(record); }
  void flush() { sinks_.flush(); }
  /// The run is over: end time, last flush.
  void finish();

  const std::vector<HistoryRecord>& history() const { return results_.content().history; }
  std::int64_t step_records() const { return static_cast<std::int64_t>(results_.content().steps.size()); }
  std::string results_path() const;

  /// The record that goes into a checkpoint made now, after `count` rounds or steps.
  RunRecord record(std::int64_t count, std::vector<std::int64_t> slots) const;
  /// <output.dir>/checkpoints/<name>_ws.._lr.._round..
  static std::string checkpoint_folder(const RunConfig& config, std::int64_t ranks, std::int64_t round);

 private:
  const RunInputs& inputs_;
  RunIdentity identity_;
  std::string commit_;
  ResultsFile results_;
  RoundLog rounds_;
  ResultsSink results_sink_;
  Progress progress_;
  MetricsFanout sinks_;
};

/// Opens the recorder of a run, called once the model is in memory and was evaluated: a run that cannot start
/// creates and replaces nothing. Collective; null on ranks other than 0.
using OpenRecorder = std::function<RunRecorder*()>;

/// output.name, else the last part of output.dir.
std::string run_name(const OutputSection& output);

}  // namespace caravan
