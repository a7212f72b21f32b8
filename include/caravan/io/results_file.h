// The results of one run in one HDF5 file (results/README.md has the schema). Written by one process, rank 0.
// The file on disk is replaced as a whole at every flush: whoever opens it, during the run or after a kill,
// finds a complete file with columns of equal length.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "caravan/core/clock.h"
#include "caravan/io/experiment_key.h"

namespace caravan {

/// Name of the file inside an output folder.
inline constexpr const char* kResultsFileName = "results.h5";

/// The root attributes.
struct RunAttributes {
  ExperimentKey experiment;
  std::string mode;        // "federated" or "synchronous"
  std::string dtype;       // "float32", "float64"
  std::string config;      // the effective configuration, YAML
  std::string commit;      // of Caravan
  std::string versions;    // one library per line: "hdf5 1.10.8"
  std::string hosts;       // host names, comma between them, in rank order without repetition
  std::string start_time;  // ISO 8601, UTC (utc_timestamp())
  std::string end_time;    // empty: the run has not come to its end

  friend bool operator==(const RunAttributes&, const RunAttributes&) = default;
};

/// One evaluation of the assembled model; round 0 is the model before training.
struct HistoryRecord {
  std::int64_t round = 0;
  double loss = 0.0;  // mean over the valid target tokens, nats
  double perplexity = 0.0;

  friend bool operator==(const HistoryRecord&, const HistoryRecord&) = default;
};

/// One optimizer step.
struct StepRecord {
  std::int64_t step = 0;  // counted from 1 over the whole run
  double loss = 0.0;
  double lr = 0.0;
  double grad_norm = 0.0;   // before clipping
  std::int64_t tokens = 0;  // valid target tokens of this step
  double seconds = 0.0;     // wall-clock time of this step

  friend bool operator==(const StepRecord&, const StepRecord&) = default;
};

struct ResultsContent {
  RunAttributes attributes;
  std::vector<HistoryRecord> history;
  std::vector<StepRecord> steps;

  friend bool operator==(const ResultsContent&, const ResultsContent&) = default;
};

/// What to do with columns of one table that differ in length: no file of ours has them, another program's
/// may.
enum class UnequalColumns : std::uint8_t { kRefuse, kCutToShortest };

/// Reads and checks a results file. Throws IoError when it is missing, damaged or not of the schema.
ResultsContent read_results(const std::string& path, UnequalColumns unequal = UnequalColumns::kRefuse);

/// append_step flushes when the last flush is this long ago.
inline constexpr double kResultsFlushSeconds = 3.0;

class ResultsFile {
 public:
  /// Writes a new file at once. Throws IoError when `path` exists or cannot be written.
  static ResultsFile create(const std::string& path, RunAttributes attributes,
                            double flush_seconds = kResultsFlushSeconds);
  /// Goes on with an existing file: reads it and clears end_time. Writes nothing yet.
  static ResultsFile reopen(const std::string& path) { return reopen(path, path); }
  /// Goes on at `path` with the content of `from`, which may be the file of another folder.
  static ResultsFile reopen(const std::string& path, const std::string& from);
  ResultsFile(ResultsFile&& other) noexcept;
  ResultsFile& operator=(ResultsFile&&) = delete;
  /// Writes what is not yet on disk; a failure is only logged.
  ~ResultsFile();

  /// Adds a row and flushes.
  void append_history(std::int64_t round, double loss, double perplexity);
  /// Adds a row; flushes when the last flush is a few seconds ago (3 s; longer, up to 10 s, where a flush
  /// takes more than 0.15 s). Call flush() before long work without steps.
  void append_step(const StepRecord& record);
  /// Keeps the first rows of both tables, to go on from an earlier point, and flushes. Throws InternalError
  /// when there are fewer.
  void truncate(std::int64_t history_rows, std::int64_t step_rows);
  /// Replaces the file on disk by the present content; nothing happens when nothing changed.
  void flush();
  /// Sets end_time and flushes.
  void finish(const std::string& end_time);

  const ResultsContent& content() const { return content_; }
  /// For a resumed run: other hosts, versions, configuration. On disk with the next flush.
  void set_attributes(RunAttributes attributes);

 private:
  ResultsFile(std::string path, ResultsContent content, double flush_seconds);

  std::string path_;  // empty after a move
  ResultsContent content_;
  bool changed_ = false;
  double flush_seconds_;
  double flush_interval_seconds_;
  StopWatch since_flush_;
};

/// Prints a results file in words: attributes, the history as a table, the steps in a few numbers.
void inspect_results_file(const std::string& path, std::ostream& out);

}  // namespace caravan
