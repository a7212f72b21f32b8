// Data files: one line parsed by itself, and the whole road of a file through index and reader.
#include <algorithm>
#include <optional>

#include "caravan/core/utf8.h"
#include "caravan/data/dataset.h"
#include "caravan/data/line_source.h"
#include "caravan/data/sample_parser.h"
#include "fuzz/fuzz_entries.h"

namespace caravan::fuzz {
namespace {

constexpr std::int64_t kShortLine = 8192;  // small buffers, many runs a second
constexpr std::int64_t kLongLine = 1 << 20;

void check_sample(const Sample& sample, std::int64_t vocab_size) {
  require(valid_utf8_prefix(sample.text) == sample.text.size(), "a sample's text is UTF-8");
  for (const std::int32_t id : sample.ids) {
    require(id >= 0 && id < vocab_size, "a sample's ids are in the vocabulary");
  }
}

/// What the index pass accepts is read afterwards, in order and by number, without an error.
void read_data_set(const std::string& path) {
  constexpr std::int64_t kVocab = 1000;
  std::optional<Dataset> data;
  const DatasetOptions options{kVocab, kShortLine, 2};
  if (!accepted([&] { data.emplace(std::vector<std::string>{path}, options); })) {
    return;
  }
  SampleReader reader(*data);
  std::int64_t count = 0;
  for (Sample sample; reader.read(sample); ++count) {
    check_sample(sample, kVocab);
  }
  require(count == data->size(), "as many samples are read as were counted");
  Sample last;
  reader.seek(count - 1);
  require(reader.read(last), "the last sample is found by its number");
}

}  // namespace

void jsonl(Bytes input) {
  for (std::string_view rest = text_of(input); !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    Sample sample;
    const bool is_checked = accepted([&] { parse_json_line(line, 1000, nullptr); });
    const bool is_read = accepted([&] { parse_json_line(line, 1000, &sample); });
    require(is_checked == is_read, "checking and reading a line agree");
    if (is_read) {
      check_sample(sample, 1000);
    }
  }
  read_data_set(file_of(input));
}

void gzip(Bytes input) {
  const std::string path = file_of(input);
  accepted([&] {
    LineSource lines(path, kLongLine);
    std::int64_t offset = 0;
    for (std::string_view line; lines.next(line);) {
      require(static_cast<std::int64_t>(line.size()) <= kLongLine, "a line keeps to its limit");
      require(lines.line_number() == 1 || lines.line_offset() > offset, "lines are in order");
      offset = lines.line_offset();
    }
  });
  read_data_set(path);
}

}  // namespace caravan::fuzz
