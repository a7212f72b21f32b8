#include "caravan/train/run_recorder.h"

#include <filesystem>

#include "caravan/io/run_folder.h"
#include "caravan/io/yaml_config.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

RunAttributes attributes_of(const RunInputs& inputs, const RunIdentity& identity,
                            const RunEnvironment& environment) {
  RunAttributes attributes;
  attributes.experiment = identity.experiment;
  attributes.mode = identity.mode;
  attributes.dtype = dtype_name(inputs.config.dtype);
  attributes.config = to_yaml(inputs.config);
  attributes.commit = environment.commit;
  attributes.versions = environment.versions;
  attributes.hosts = environment.hosts;
  attributes.start_time = environment.start_time;
  return attributes;
}

std::string round_log_path(const RunConfig& config, const ExperimentKey& experiment) {
  return (fs::path(config.output.dir) / round_log_name(experiment.world_size, experiment.rounds)).string();
}

std::string results_file_path(const RunConfig& config) {
  return (fs::path(config.output.dir) / kResultsFileName).string();
}

ResultsFile open_results(const RunInputs& inputs, RunAttributes attributes,
                         const RunRecorder::ResumePoint* resume) {
  const std::string path = results_file_path(inputs.config);
  if (resume == nullptr) {
    return ResultsFile::create(path, std::move(attributes));
  }
  ResultsFile results = ResultsFile::reopen(path, resume->results.empty() ? path : resume->results);
  const RunAttributes& before = results.content().attributes;
  attributes.start_time = before.start_time;
  const std::string log_before = round_log_path(inputs.config, before.experiment);
  if (log_before != round_log_path(inputs.config, attributes.experiment)) {
    // The log is named after the numbers of ranks and rounds; it is written anew. First the removal: a kill
    // in between must not leave two.
    fs::remove(log_before);
  }
  results.set_attributes(std::move(attributes));
  results.truncate(resume->history_records, resume->step_records);
  return results;
}

ProgressOptions console_options(RunIdentity::Counts counts) {
  ProgressOptions options = ProgressOptions::for_console();
  options.evaluation_unit = counts == RunIdentity::Counts::kRounds ? "round" : "step";
  return options;
}

}  // namespace

std::string run_name(const OutputSection& output) {
  if (output.name) {
    return *output.name;
  }
  fs::path dir = fs::path(output.dir).lexically_normal();
  if (!dir.has_filename()) {
    dir = dir.parent_path();  // "runs/a/"
  }
  const std::string name = dir.filename().string();
  return name.empty() || name == "." || name == ".." ? "run" : name;
}

RunRecorder::RunRecorder(const RunInputs& inputs, const RunIdentity& identity,
                         const RunEnvironment& environment, const ResumePoint* resume)
    : inputs_(inputs),
      identity_(identity),
      commit_(environment.commit),
      results_(open_results(inputs, attributes_of(inputs, identity, environment), resume)),
      rounds_(round_log_path(inputs.config, identity.experiment), results_.content().history),
      results_sink_(results_, rounds_),
      progress_(console_options(identity.counts)) {
  sinks_.add(results_sink_);
  sinks_.add(progress_);
}

void RunRecorder::begin_phase(const std::string& label, std::int64_t total_steps) {
  progress_.begin(label, total_steps);
}

void RunRecorder::end_phase() {
  progress_.end();
}

void RunRecorder::finish() {
  results_.finish(utc_timestamp());
}

std::string RunRecorder::results_path() const {
  return results_file_path(inputs_.config);
}

RunRecord RunRecorder::record(std::int64_t count, std::vector<std::int64_t> slots) const {
  RunRecord record;
  record.experiment = identity_.experiment;
  record.mode = identity_.mode;
  (identity_.counts == RunIdentity::Counts::kRounds ? record.round : record.step) = count;
  record.slots = std::move(slots);
  record.step_records = step_records();
  record.config = to_yaml(inputs_.config);
  record.commit = commit_;
  return record;
}

std::string RunRecorder::checkpoint_folder(const RunConfig& config, std::int64_t ranks, std::int64_t round) {
  return (fs::path(config.output.dir) / kCheckpointsFolder /
          checkpoint_folder_name(run_name(config.output), ranks, config.optimizer.lr, round))
      .string();
}

}  // namespace caravan
