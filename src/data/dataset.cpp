#include "caravan/data/dataset.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <span>
#include <utility>

#include "caravan/core/checksum.h"
#include "caravan/core/error.h"
#include "caravan/core/parallel_for.h"
#include "caravan/data/path_list.h"

namespace caravan {
namespace {

// True when the line is a JSON object with text or ids, well-formed: what decides about a file whose name
// says nothing.
bool is_json_sample(std::string_view line) {
  try {
    parse_json_line(line, std::nullopt, nullptr);
    return true;
  } catch (const IoError&) {
    return false;
  }
}

std::optional<FileFormat> format_by_name(std::string_view path) {
  if (path.ends_with(".gz")) {
    path.remove_suffix(3);
  }
  if (path.ends_with(".jsonl") || path.ends_with(".ndjson") || path.ends_with(".json")) {
    return FileFormat::kJsonLines;
  }
  return path.ends_with(".txt") ? std::optional(FileFormat::kPlainText) : std::nullopt;
}

SampleKind parse_line(const IndexedFile& file, std::string_view line, std::int64_t line_number,
                      const DatasetOptions& options, Sample* sample) {
  try {
    return file.format == FileFormat::kJsonLines ? parse_json_line(line, options.vocab_size, sample)
                                                 : parse_text_line(line, sample);
  } catch (const IoError& problem) {
    fail<IoError>("{}:{}: {}", file.path, line_number, problem.what());
  }
}

// Half of the samples from one content and half from another would be trained on without a word.
void check_stamp(const IndexedFile& file, const LineSource& source) {
  const FileStamp now = source.stamp();
  if (now == file.stamp) {
    return;
  }
  const std::string what =
      now.size != file.stamp.size ? fmt::format("it had {} bytes and has {}", file.stamp.size, now.size)
      : now.number != file.stamp.number || now.device != file.stamp.device ? "another file is in its place"
                                                                           : "it was written to";
  fail<IoError>("{}: changed since the run opened it ({}); do not change data in use, start the run again",
                file.path, what);
}

// Reads the whole file. Gives up early, with a result nobody looks at, when `is_pointless` says so.
template <class IsPointless>
IndexedFile index_file(const std::string& path, const DatasetOptions& options,
                       const IsPointless& is_pointless) {
  LineSource source(path, options.max_line_bytes);
  IndexedFile file;
  file.path = path;
  file.stamp = source.stamp();
  file.is_compressed = source.is_compressed();
  const auto by_name = format_by_name(path);
  file.format = by_name.value_or(FileFormat::kPlainText);
  std::string_view line;
  Checksum checksum;
  while (source.next(line)) {
    if (is_blank(line)) {
      continue;
    }
    checksum.add(std::as_bytes(std::span(line)));
    checksum.add(std::as_bytes(std::span("\n", 1)));
    if (file.samples == 0 && !by_name && is_json_sample(line)) {
      file.format = FileFormat::kJsonLines;
    }
    if (parse_line(file, line, source.line_number(), options, nullptr) == SampleKind::kText) {
      file.first_text_line = file.text_samples == 0 ? source.line_number() : file.first_text_line;
      ++file.text_samples;
    }
    if (file.samples % options.index_stride == 0) {
      if (is_pointless()) {
        break;
      }
      if (!file.is_compressed) {
        file.every_kth.push_back({source.line_offset(), source.line_number() - 1});
      }
    }
    const auto bytes = static_cast<std::int64_t>(line.size());
    file.sample_bytes += bytes;
    file.longest_sample_bytes = std::max(file.longest_sample_bytes, bytes);
    ++file.samples;
  }
  file.every_kth.shrink_to_fit();
  file.checksum = checksum.value();
  check_stamp(file, source);
  return file;
}

/// `known` becomes `value` unless it is lower already.
void lower_to(std::atomic<std::size_t>& known, std::size_t value) {
  std::size_t seen = known.load();
  while (value < seen && !known.compare_exchange_weak(seen, value)) {
  }
}

// The error thrown is the one of the first bad file in order, whichever thread met one first.
std::vector<IndexedFile> index_files(const std::vector<std::string>& paths, const DatasetOptions& options) {
  std::vector<IndexedFile> files(paths.size());
  std::vector<std::exception_ptr> problems(paths.size());
  std::atomic<std::size_t> first_bad = paths.size();
  parallel_for(static_cast<std::int64_t>(paths.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      const auto is_pointless = [&first_bad, i] { return i > first_bad.load(); };
      if (is_pointless()) {
        continue;
      }
      try {
        files[i] = index_file(paths[i], options, is_pointless);
      } catch (...) {
        problems[i] = std::current_exception();
        lower_to(first_bad, i);
      }
    }
  });
  if (first_bad < paths.size()) {
    std::rethrow_exception(problems[first_bad]);
  }
  return files;
}

}  // namespace

Dataset::Dataset(const std::vector<std::string>& patterns, const DatasetOptions& options) {
  CARAVAN_CHECK(options.index_stride > 0, "index_stride is {}", options.index_stride);
  auto index = std::make_shared<Index>();
  index->options = options;
  index->files = index_files(expand_paths(patterns), options);
  Checksum checksum;
  for (IndexedFile& file : index->files) {
    checksum.add(std::as_bytes(std::span(&file.checksum, 1)));
    file.first_sample = index->samples;
    index->samples += file.samples;
    index->text_samples += file.text_samples;
    index->sample_bytes += file.sample_bytes;
    index->longest_sample_bytes = std::max(index->longest_sample_bytes, file.longest_sample_bytes);
  }
  index->checksum = checksum.value();
  if (index->samples == 0) {
    fail<IoError>("{}: no samples: {} empty or only blank lines", index->files.front().path,
                  index->files.size() == 1 ? std::string("the file is")
                                           : fmt::format("all {} files are", index->files.size()));
  }
  index_ = std::move(index);
}

std::string Dataset::first_text_sample() const {
  for (const IndexedFile& file : files()) {
    if (file.first_text_line > 0) {
      return fmt::format("{}:{}", file.path, file.first_text_line);
    }
  }
  return {};
}

void SampleReader::seek(std::int64_t number) {
  CARAVAN_CHECK(number >= 0 && number <= dataset_.size(), "sample {} of {}", number, dataset_.size());
  const auto& files = dataset_.files();
  // The last file that begins at or before the sample; files without samples share their beginning with the
  // next.
  const auto after =
      std::upper_bound(files.begin(), files.end(), number,
                       [](std::int64_t n, const IndexedFile& file) { return n < file.first_sample; });
  const auto file = static_cast<std::size_t>(after - files.begin()) - 1;
  if (source_ == nullptr || file != file_ || number < position_) {
    enter_file(file);
  }
  skip_in_file(number - files[file].first_sample);
  position_ = number;
}

bool SampleReader::read(Sample& sample) {
  if (position_ == dataset_.size()) {
    return false;
  }
  if (source_ == nullptr || at_in_file_ == dataset_.files()[file_].samples) {
    seek(position_);
  }
  const IndexedFile& file = dataset_.files()[file_];
  std::string_view line;
  require_next_line(line);
  try {
    parse_line(file, line, source_->line_number(), dataset_.options(), &sample);
  } catch (const IoError&) {
    check_unchanged();  // says more than what the changed file's line looks like
    throw;
  }
  ++at_in_file_;
  ++position_;
  if (at_in_file_ == file.samples) {
    check_stamp(file, *source_);
  }
  return true;
}

void SampleReader::check_unchanged() const {
  if (source_ != nullptr) {
    check_stamp(dataset_.files()[file_], *source_);
  }
}

void SampleReader::enter_file(std::size_t file) {
  file_ = file;
  at_in_file_ = 0;
  source_ = std::make_unique<LineSource>(dataset_.files()[file].path, dataset_.options().max_line_bytes);
  check_stamp(dataset_.files()[file], *source_);
}

void SampleReader::skip_in_file(std::int64_t target) {
  const IndexedFile& file = dataset_.files()[file_];
  if (!file.every_kth.empty()) {
    const auto entry = std::min(target / dataset_.options().index_stride,
                                static_cast<std::int64_t>(file.every_kth.size()) - 1);
    const std::int64_t sample = entry * dataset_.options().index_stride;
    if (sample > at_in_file_) {
      const LinePosition& place = file.every_kth[static_cast<std::size_t>(entry)];
      source_->seek(place.offset, place.lines_before + 1);
      at_in_file_ = sample;
    }
  }
  std::string_view line;
  for (; at_in_file_ < target; ++at_in_file_) {
    require_next_line(line);
  }
}

void SampleReader::require_next_line(std::string_view& line) {
  while (source_->next(line)) {
    if (!is_blank(line)) {
      return;
    }
  }
  check_unchanged();
  const IndexedFile& file = dataset_.files()[file_];
  fail<IoError>("{}: ends after {} samples, there were {} when it was opened; do not change data in use",
                file.path, at_in_file_, file.samples);
}

}  // namespace caravan
