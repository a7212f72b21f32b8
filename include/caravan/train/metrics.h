// Where the numbers of a run go. The trainer reports each step and each evaluation once, on the rank that
// writes; the sinks are the results file, the round log and the console.
#pragma once

#include <vector>

#include "caravan/io/results_file.h"
#include "caravan/io/round_log.h"

namespace caravan {

class MetricsSink {
 public:
  virtual ~MetricsSink() = default;
  virtual void on_step(const StepRecord& record) = 0;
  virtual void on_evaluation(const HistoryRecord& record) = 0;
  /// Called before long work that reports nothing (an evaluation, a checkpoint).
  virtual void flush() {}
};

/// Passes everything on, in the order the sinks were added. The sinks belong to the caller and must outlive
/// it.
class MetricsFanout final : public MetricsSink {
 public:
  void add(MetricsSink& sink) { sinks_.push_back(&sink); }
  void on_step(const StepRecord& record) override {
    for (MetricsSink* sink : sinks_) {
      sink->on_step(record);
    }
  }
  void on_evaluation(const HistoryRecord& record) override {
    for (MetricsSink* sink : sinks_) {
      sink->on_evaluation(record);
    }
  }
  void flush() override {
    for (MetricsSink* sink : sinks_) {
      sink->flush();
    }
  }

 private:
  std::vector<MetricsSink*> sinks_;
};

/// Steps and evaluations to results.h5, evaluations also to the round log. Both belong to the caller.
class ResultsSink final : public MetricsSink {
 public:
  ResultsSink(ResultsFile& results, RoundLog& rounds) : results_(results), rounds_(rounds) {}
  void on_step(const StepRecord& record) override { results_.append_step(record); }
  void on_evaluation(const HistoryRecord& record) override {
    results_.append_history(record.round, record.loss, record.perplexity);
    rounds_.append(record);
  }
  void flush() override { results_.flush(); }

 private:
  ResultsFile& results_;
  RoundLog& rounds_;
};

}  // namespace caravan
