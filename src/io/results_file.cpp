#include "caravan/io/results_file.h"

#include <algorithm>
#include <exception>
#include <filesystem>
#include <utility>

#include "caravan/core/atomic_file.h"
#include "caravan/core/error.h"
#include "caravan/core/log.h"
#include "caravan/core/narrow.h"
#include "caravan/io/hdf5_file.h"

namespace caravan {
namespace {

constexpr double kLongestFlushFactor = 10.0 / 3.0;
constexpr double kFlushShare = 0.05;  // of the run's time, while the interval can still grow

// ---- the only list of what is in the file; reading and writing walk it

template <class Attributes, class Visitor>
void visit_attributes(Attributes& attributes, Visitor&& visit) {
  auto& experiment = attributes.experiment;
  visit("world_size", experiment.world_size);
  visit("lr", experiment.lr);
  visit("enable_swapping", experiment.enable_swapping);
  visit("rounds", experiment.rounds);
  visit("local_epochs", experiment.local_epochs);
  visit("dataset", experiment.dataset);
  visit("seed", experiment.seed);
  visit("mode", attributes.mode);
  visit("dtype", attributes.dtype);
  visit("config", attributes.config);
  visit("commit", attributes.commit);
  visit("versions", attributes.versions);
  visit("hosts", attributes.hosts);
  visit("start_time", attributes.start_time);
  visit("end_time", attributes.end_time);
}

template <class Visitor>
void visit_columns(const HistoryRecord*, Visitor&& visit) {
  visit("/history/round", &HistoryRecord::round);
  visit("/history/loss", &HistoryRecord::loss);
  visit("/history/perplexity", &HistoryRecord::perplexity);
}

template <class Visitor>
void visit_columns(const StepRecord*, Visitor&& visit) {
  visit("/steps/step", &StepRecord::step);
  visit("/steps/loss", &StepRecord::loss);
  visit("/steps/lr", &StepRecord::lr);
  visit("/steps/grad_norm", &StepRecord::grad_norm);
  visit("/steps/tokens", &StepRecord::tokens);
  visit("/steps/seconds", &StepRecord::seconds);
}

// ---- writing

template <class Record>
void write_table(Hdf5File& file, const std::vector<Record>& rows) {
  const auto write_column = [&]<class T>(const char* path, T Record::*member) {
    std::vector<T> column(rows.size());
    std::transform(rows.begin(), rows.end(), column.begin(), [&](const Record& row) { return row.*member; });
    file.write(path, column);
  };
  visit_columns(static_cast<const Record*>(nullptr), write_column);
}

std::string encode(const std::string& path, const ResultsContent& content) {
  Hdf5File file = Hdf5File::create(path);
  visit_attributes(content.attributes,
                   [&](const char* name, const auto& value) { file.set_attribute(name, value); });
  file.create_group("/history");
  write_table(file, content.history);
  file.create_group("/steps");
  write_table(file, content.steps);
  return file.bytes();
}

// ---- reading

struct AttributeReader {
  const Hdf5File& file;
  void operator()(const char* name, std::int64_t& value) const { value = file.int64_attribute(name); }
  void operator()(const char* name, double& value) const { value = file.float64_attribute(name); }
  void operator()(const char* name, bool& value) const { value = file.bool_attribute(name); }
  void operator()(const char* name, std::string& value) const { value = file.text_attribute(name); }
};

void read_column(const Hdf5File& file, const char* path, std::vector<std::int64_t>& column) {
  column = file.read_int64(path);
}

void read_column(const Hdf5File& file, const char* path, std::vector<double>& column) {
  column = file.read_float64(path);
}

template <class Record>
std::vector<Record> read_table(const Hdf5File& file, const std::string& name, UnequalColumns unequal) {
  std::vector<Record> rows;
  bool is_first = true;
  const auto add_column = [&]<class T>(const char* path, T Record::*member) {
    std::vector<T> column;
    read_column(file, path, column);
    if (std::exchange(is_first, false)) {
      rows.resize(column.size());
    }
    if (column.size() != rows.size() && unequal == UnequalColumns::kRefuse) {
      fail<IoError>("{}: {} has {} rows where the columns before it have {}; the file is damaged", name, path,
                    column.size(), rows.size());
    }
    rows.resize(std::min(rows.size(), column.size()));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      rows[i].*member = column[i];
    }
  };
  visit_columns(static_cast<const Record*>(nullptr), add_column);
  return rows;
}

}  // namespace

ResultsContent read_results(const std::string& path, UnequalColumns unequal) {
  const Hdf5File file = Hdf5File::open(path);
  ResultsContent content;
  visit_attributes(content.attributes, AttributeReader{file});
  content.history = read_table<HistoryRecord>(file, path, unequal);
  content.steps = read_table<StepRecord>(file, path, unequal);
  return content;
}

ResultsFile::ResultsFile(std::string path, ResultsContent content, double flush_seconds)
    : path_(std::move(path)),
      content_(std::move(content)),
      flush_seconds_(flush_seconds),
      flush_interval_seconds_(flush_seconds) {}

ResultsFile::ResultsFile(ResultsFile&& other) noexcept
    : path_(std::exchange(other.path_, std::string())),
      content_(std::move(other.content_)),
      changed_(other.changed_),
      flush_seconds_(other.flush_seconds_),
      flush_interval_seconds_(other.flush_interval_seconds_),
      since_flush_(other.since_flush_) {}

ResultsFile::~ResultsFile() {
  if (path_.empty()) {
    return;
  }
  try {
    flush();
  } catch (const std::exception& error) {
    if (std::uncaught_exceptions() == 0) {  // else the run is ending with an error, which says why
      log::warning("the last rows of the results are lost: {}", error.what());
    }
  }
}

ResultsFile ResultsFile::create(const std::string& path, RunAttributes attributes, double flush_seconds) {
  if (std::filesystem::exists(path)) {
    fail<IoError>(
        "{}: exists; results are never overwritten silently, give another output.dir or --overwrite", path);
  }
  ResultsFile file(path, ResultsContent{std::move(attributes), {}, {}}, flush_seconds);
  file.changed_ = true;
  file.flush();
  return file;
}

ResultsFile ResultsFile::reopen(const std::string& path, const std::string& from) {
  ResultsFile file(path, read_results(from, UnequalColumns::kCutToShortest), kResultsFlushSeconds);
  file.content_.attributes.end_time.clear();
  return file;
}

void ResultsFile::append_history(std::int64_t round, double loss, double perplexity) {
  content_.history.push_back({round, loss, perplexity});
  changed_ = true;
  flush();
}

void ResultsFile::append_step(const StepRecord& record) {
  content_.steps.push_back(record);
  changed_ = true;
  if (since_flush_.seconds() >= flush_interval_seconds_) {
    flush();
  }
}

void ResultsFile::truncate(std::int64_t history_rows, std::int64_t step_rows) {
  const auto history = narrow<std::size_t>(history_rows);
  const auto steps = narrow<std::size_t>(step_rows);
  CARAVAN_CHECK(history <= content_.history.size() && steps <= content_.steps.size(),
                "{}: cannot keep {} history and {} step rows of {} and {}", path_, history, steps,
                content_.history.size(), content_.steps.size());
  content_.history.resize(history);
  content_.steps.resize(steps);
  changed_ = true;
  flush();
}

void ResultsFile::flush() {
  if (!changed_) {
    return;
  }
  const StopWatch watch;
  write_file_atomically(path_, encode(path_, content_));
  changed_ = false;
  flush_interval_seconds_ =
      std::clamp(watch.seconds() / kFlushShare, flush_seconds_, kLongestFlushFactor * flush_seconds_);
  since_flush_.restart();
}

void ResultsFile::finish(const std::string& end_time) {
  content_.attributes.end_time = end_time;
  changed_ = true;
  flush();
}

void ResultsFile::set_attributes(RunAttributes attributes) {
  content_.attributes = std::move(attributes);
  changed_ = true;
}

}  // namespace caravan
