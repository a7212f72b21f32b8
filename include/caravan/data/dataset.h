// The samples of a list of data files, in file order, streamed: only counts and sparse offsets are in memory.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "caravan/data/line_source.h"
#include "caravan/data/sample_parser.h"

namespace caravan {

/// json lines for names that end in .jsonl, .ndjson or .json, plain text for .txt (each also with .gz); any
/// other name: json lines when its first non-blank line is a JSON sample, plain text otherwise.
enum class FileFormat : std::uint8_t { kJsonLines, kPlainText };

/// Where a sample's line begins.
struct LinePosition {
  std::int64_t offset = 0;
  std::int64_t lines_before = 0;
};

/// What the index pass learned of one file.
struct IndexedFile {
  std::string path;
  FileStamp stamp;
  FileFormat format = FileFormat::kPlainText;
  bool is_compressed = false;
  std::int64_t first_sample = 0;     // number of its first sample in the data set
  std::int64_t samples = 0;          // may be 0 as long as another file has some
  std::int64_t text_samples = 0;     // of them to be encoded
  std::int64_t first_text_line = 0;  // line of the first of those, 0: none
  std::int64_t sample_bytes = 0;     // sum of the samples' line lengths
  std::int64_t longest_sample_bytes = 0;
  std::uint64_t checksum = 0;           // of the samples' lines (core/checksum.h)
  std::vector<LinePosition> every_kth;  // plain files: samples 0, K, 2K, ...; gzip: none
};

struct DatasetOptions {
  std::optional<std::int64_t> vocab_size = std::nullopt;  // given: ids must be below it
  std::int64_t max_line_bytes = kMaxLineBytes;
  std::int64_t index_stride = 256;  // K of IndexedFile::every_kth
};

/// Copies share one index. Opening reads every file once and checks every line, files in parallel
/// (core/parallel_for), so that a malformed line is an error before training starts.
class Dataset {
 public:
  /// `patterns` as for expand_paths. Throws IoError naming file and line for the first malformed line in file
  /// order, IoError when there is no sample at all, and what expand_paths throws.
  explicit Dataset(const std::vector<std::string>& patterns, const DatasetOptions& options = {});

  std::int64_t size() const { return index_->samples; }
  std::int64_t text_samples() const { return index_->text_samples; }
  /// "file:line" of the first sample that needs a tokenizer; empty when all carry ids.
  std::string first_text_sample() const;
  /// Sum and maximum of the samples' line lengths.
  std::int64_t sample_bytes() const { return index_->sample_bytes; }
  std::int64_t longest_sample_bytes() const { return index_->longest_sample_bytes; }
  /// Of all lines in order: the same for the same samples in as many files, whatever those are called and
  /// however they are compressed.
  std::uint64_t checksum() const { return index_->checksum; }
  const std::vector<IndexedFile>& files() const { return index_->files; }
  const DatasetOptions& options() const { return index_->options; }

 private:
  struct Index {
    DatasetOptions options;
    std::vector<IndexedFile> files;
    std::int64_t samples = 0;
    std::int64_t text_samples = 0;
    std::int64_t sample_bytes = 0;
    std::int64_t longest_sample_bytes = 0;
    std::uint64_t checksum = 0;
  };
  std::shared_ptr<const Index> index_;
};

/// Reads samples in order from any place on. One file is open at a time. A plain file is entered by a seek; a
/// gzip file is read from its beginning.
class SampleReader {
 public:
  explicit SampleReader(Dataset dataset) : dataset_(std::move(dataset)) {}

  /// The next read() gives sample `number`, 0 <= number <= size(). Going forward costs at most reading lines.
  void seek(std::int64_t number);
  /// False after the last sample. Throws IoError when a file is not what it was in the index pass: on
  /// entering it, and after its last sample.
  bool read(Sample& sample);
  /// Throws that error for the file that is open, at any sample.
  void check_unchanged() const;
  /// Number of the sample that the next read() gives.
  std::int64_t position() const { return position_; }

 private:
  void enter_file(std::size_t file);
  void skip_in_file(std::int64_t target);
  void require_next_line(std::string_view& line);

  Dataset dataset_;
  std::int64_t position_ = 0;
  std::size_t file_ = 0;
  std::int64_t at_in_file_ = 0;         // samples of the open file already passed
  std::unique_ptr<LineSource> source_;  // of file_; null: not open
};

}  // namespace caravan
