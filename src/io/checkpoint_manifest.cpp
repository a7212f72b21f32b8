#include "caravan/io/checkpoint_manifest.h"

#include <filesystem>
#include <limits>
#include <optional>
#include <unordered_map>

#include "caravan/core/atomic_file.h"
#include "caravan/core/checksum.h"
#include "caravan/core/error.h"
#include "caravan/core/text_file.h"
#include "caravan/io/input_file.h"
#include "json_file.h"
#include "manifest_check.h"
#include "safetensors_header.h"

namespace caravan {
namespace {

using nlohmann::json;

constexpr const char* kFormat = "caravan training checkpoint";
constexpr std::int64_t kFormatVersion = 1;
// Some hundred bytes a piece: a million pieces fit.
constexpr std::int64_t kMaxManifestBytes = std::int64_t{128} << 20U;
// {"checksum": "0123456789abcdef",\n
constexpr std::string_view kHead = "{\"checksum\": \"";
constexpr std::string_view kAfterChecksum = "\",\n";
constexpr std::size_t kChecksumDigits = 16;

std::string manifest_path(const std::string& folder) {
  return (std::filesystem::path(folder) / kManifestName).string();
}

// ---- to text

std::string quoted(const std::string& text) {
  return json(text).dump(-1, ' ', false, json::error_handler_t::replace);
}

void append_state(std::string& text, const TrainingState& state) {
  text += fmt::format(
      "\"state\": {{\"step\": {}, \"optimizer_step\": {}, \"data_position\": {}, \"step_records\": {}, "
      "\"history_records\": {},\n",
      state.step, state.optimizer_step, state.data_position, state.step_records, state.history_records);
  text += fmt::format("\"seed\": {}, \"random_state\": {}, \"commit\": {}, \"ranks\": {}, \"mesh\": {},\n",
                      state.seed, quoted(state.random_state), quoted(state.commit), state.ranks,
                      quoted(state.mesh));
  text += fmt::format("\"config\": {},\n\"extra\": {{", quoted(state.config));
  const char* separator = "";
  for (const auto& [key, value] : state.extra) {
    text += fmt::format("{}{}: {}", separator, quoted(key), quoted(value));
    separator = ", ";
  }
  text += "}},\n";
}

std::string numbers_text(const Shape& shape) {
  return shape.str();
}

std::string numbers_text(const Region& region) {
  std::string text = "[";
  for (const Range& range : region) {
    text += fmt::format("{}{}, {}", text.size() > 1 ? ", " : "", range.begin, range.end);
  }
  return text + "]";
}

/// One line per item: people read manifests too.
template <class Item, class Line>
void append_list(std::string& text, const char* key, const std::vector<Item>& items, const Line& line) {
  text += fmt::format("\"{}\": [", key);
  const char* separator = "\n";
  for (const Item& item : items) {
    text += separator + line(item);
    separator = ",\n";
  }
  text += "\n]";
}

void append_tables(std::string& text, const CheckpointTables& tables) {
  append_list(text, "tensors", tables.tensors, [](const GlobalTensor& tensor) {
    return fmt::format("[{}, \"{}\", {}]", quoted(tensor.name), safetensors_dtype_name(tensor.dtype),
                       numbers_text(tensor.shape));
  });
  text += ",\n";
  append_list(text, "files", tables.files, [](const ShardFile& file) {
    return fmt::format("[{}, {}, {}, \"{}\"]", quoted(file.name), file.bytes, file.header_bytes,
                       checksum_text(file.header_checksum));
  });
  text += ",\n";
  append_list(text, "pieces", tables.pieces, [](const CheckpointPiece& piece) {
    return fmt::format("[{}, {}, {}, {}, {}, \"{}\"]", piece.tensor, piece.file, piece.begin, piece.end,
                       numbers_text(piece.region), checksum_text(piece.checksum));
  });
  text += "}\n";
}

// ---- from text

/// Typed access to the items of JSON lists; every message begins with the file.
class ListReader {
 public:
  explicit ListReader(const std::string& where) : where_(where) {}

  const json& list(const json& object, const char* key) const {
    const auto at = object.find(key);
    if (at == object.end() || !at->is_array()) {
      fail<IoError>("{}: has no list '{}'", where_, key);
    }
    return *at;
  }
  const json& row(const json& item, std::size_t size, const char* what) const {
    if (!item.is_array() || item.size() != size) {
      fail<IoError>("{}: an entry of {} is no list of {}", where_, what, size);
    }
    return item;
  }
  std::int64_t number(const json& value) const {
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > kMax) {
      fail<IoError>("{}: {} where a whole number is expected", where_, shown(value));
    }
    return value.get<std::int64_t>();
  }
  std::string text(const json& value) const {
    if (!value.is_string()) {
      fail<IoError>("{}: {} where a text is expected", where_, shown(value));
    }
    return value.get<std::string>();
  }
  std::uint64_t checksum(const json& value) const {
    const std::optional<std::uint64_t> checksum = parse_checksum(text(value));
    if (!checksum) {
      fail<IoError>("{}: {} where a checksum of 16 digits is expected", where_, shown(value));
    }
    return *checksum;
  }
  std::vector<std::int64_t> numbers(const json& value, std::size_t most) const {
    if (!value.is_array() || value.size() > most) {
      fail<IoError>("{}: {} where a list of at most {} numbers is expected", where_, shown(value), most);
    }
    std::vector<std::int64_t> result;
    for (const json& item : value) {
      result.push_back(number(item));
    }
    return result;
  }
  DType dtype(const json& value) const {
    const std::optional<DType> dtype = safetensors_dtype(text(value));
    if (!dtype) {
      fail<IoError>("{}: {} is no dtype", where_, shown(value));
    }
    return *dtype;
  }

 private:
  static constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());

  static std::string shown(const json& value) {
    return value.dump(-1, ' ', true, json::error_handler_t::replace).substr(0, 80);
  }

  const std::string& where_;
};

CheckpointTables read_tables(const json& object, const std::string& where) {
  const ListReader read(where);
  constexpr auto kMaxRank = static_cast<std::size_t>(Shape::kMaxRank);
  CheckpointTables tables;
  for (const json& item : read.list(object, "tensors")) {
    const json& row = read.row(item, 3, "tensors");
    GlobalTensor tensor{read.text(row[0]), {}, read.dtype(row[1])};
    for (const std::int64_t size : read.numbers(row[2], kMaxRank)) {
      tensor.shape.append(size);
    }
    tables.tensors.push_back(std::move(tensor));
  }
  for (const json& item : read.list(object, "files")) {
    const json& row = read.row(item, 4, "files");
    tables.files.push_back(
        {read.text(row[0]), read.number(row[1]), read.number(row[2]), read.checksum(row[3])});
  }
  for (const json& item : read.list(object, "pieces")) {
    const json& row = read.row(item, 6, "pieces");
    CheckpointPiece piece{.tensor = read.number(row[0]),
                          .file = read.number(row[1]),
                          .begin = read.number(row[2]),
                          .end = read.number(row[3]),
                          .checksum = read.checksum(row[5])};
    const std::vector<std::int64_t> ends = read.numbers(row[4], 2 * kMaxRank);
    if (ends.size() % 2 != 0) {
      fail<IoError>("{}: a region of {} numbers, which are no pairs", where, ends.size());
    }
    for (std::size_t i = 0; i < ends.size(); i += 2) {
      piece.region.push_back({ends[i], ends[i + 1]});
    }
    tables.pieces.push_back(std::move(piece));
  }
  check_tables(tables, where);
  return tables;
}

TrainingState read_state(const json& object, const std::string& where) {
  const auto at = object.find("state");
  if (at == object.end() || !at->is_object()) {
    fail<IoError>("{}: has no section 'state'", where);
  }
  const JsonFields fields(*at, where + ": state");
  const auto integer = [&](const char* key, std::int64_t lowest) {
    const std::optional<std::int64_t> value = fields.integer(key);
    if (!value || *value < lowest) {
      fail<IoError>("{}: state: '{}' is missing or less than {}", where, key, lowest);
    }
    return *value;
  };
  const auto text = [&](const char* key) {
    const std::optional<std::string> value = fields.text(key);
    if (!value) {
      fail<IoError>("{}: state: '{}' is missing", where, key);
    }
    return *value;
  };
  TrainingState state;
  state.step = integer("step", 0);
  state.optimizer_step = integer("optimizer_step", 0);
  state.data_position = integer("data_position", 0);
  state.step_records = integer("step_records", 0);
  state.history_records = integer("history_records", 0);
  state.seed = integer("seed", std::numeric_limits<std::int64_t>::min());
  state.random_state = text("random_state");
  state.config = text("config");
  state.commit = text("commit");
  state.ranks = integer("ranks", 1);
  state.mesh = text("mesh");
  const json* extra = fields.find("extra");
  if (extra == nullptr || !extra->is_object()) {
    fail<IoError>("{}: state: 'extra' is no section", where);
  }
  const ListReader read(where);
  for (const auto& [key, value] : extra->items()) {
    state.extra.emplace(key, read.text(value));
  }
  return state;
}

void check_own_checksum(std::string_view text, const std::string& path) {
  const std::size_t rest = kHead.size() + kChecksumDigits + kAfterChecksum.size();
  const bool is_ours = text.size() > rest && text.starts_with(kHead) &&
                       text.substr(kHead.size() + kChecksumDigits, kAfterChecksum.size()) == kAfterChecksum;
  const auto wanted =
      is_ours ? parse_checksum(text.substr(kHead.size(), kChecksumDigits)) : std::optional<std::uint64_t>();
  if (!wanted) {
    fail<IoError>("{}: is no manifest of a training checkpoint: it does not begin with its checksum", path);
  }
  if (const std::uint64_t found = checksum_of(text.substr(rest)); found != *wanted) {
    fail<IoError>("{}: is damaged or cut short: its checksum is {}, not {}", path, checksum_text(found),
                  checksum_text(*wanted));
  }
}

}  // namespace

CheckpointManifest merge_tables(std::string id, TrainingState state,
                                const std::vector<CheckpointTables>& reports) {
  CheckpointManifest manifest{std::move(id), std::move(state), {}};
  CheckpointTables& all = manifest.tables;
  std::unordered_map<std::string, std::int64_t> index_of;
  const auto place_of = [&](const GlobalTensor& tensor) {
    const auto [at, is_new] = index_of.emplace(tensor.name, static_cast<std::int64_t>(all.tensors.size()));
    if (is_new) {
      all.tensors.push_back(tensor);
    }
    const GlobalTensor& known = all.tensors[static_cast<std::size_t>(at->second)];
    CARAVAN_CHECK(known == tensor, "ranks write tensor {} as {} {} and as {} {}", tensor.name,
                  dtype_name(known.dtype), known.shape.str(), dtype_name(tensor.dtype), tensor.shape.str());
    return at->second;
  };
  for (const CheckpointTables& report : reports) {
    std::vector<std::int64_t> index;  // in all.tensors, of each of the report's
    for (const GlobalTensor& tensor : report.tensors) {
      index.push_back(place_of(tensor));
    }
    const auto first_file = static_cast<std::int64_t>(all.files.size());
    all.files.insert(all.files.end(), report.files.begin(), report.files.end());
    for (CheckpointPiece piece : report.pieces) {
      piece.tensor = index.at(static_cast<std::size_t>(piece.tensor));
      piece.file += first_file;
      all.pieces.push_back(std::move(piece));
    }
  }
  try {
    check_tables(all, "the ranks' pieces");
    check_complete(all, "the ranks' pieces");
  } catch (const IoError& problem) {
    fail<InternalError>("a checkpoint that could not be read again: {}", problem.what());
  }
  return manifest;
}

std::string tables_text(const CheckpointTables& tables) {
  std::string text = "{";
  append_tables(text, tables);
  return text;
}

CheckpointTables parse_tables(const std::string& text, const std::string& source) {
  return read_tables(parse_json_object(text, source), source);
}

std::string manifest_text(const CheckpointManifest& manifest) {
  std::string rest = fmt::format("\"format\": \"{}\", \"format_version\": {},\n\"id\": {},\n", kFormat,
                                 kFormatVersion, quoted(manifest.id));
  append_state(rest, manifest.state);
  append_tables(rest, manifest.tables);
  std::string text(kHead);
  text += checksum_text(checksum_of(rest));
  text += kAfterChecksum;
  text += rest;
  CARAVAN_CHECK(static_cast<std::int64_t>(text.size()) <= kMaxManifestBytes, "a manifest of {} bytes",
                text.size());
  return text;
}

CheckpointManifest parse_manifest(const std::string& text, const std::string& path) {
  check_own_checksum(text, path);
  const json object = parse_json_object(text, path);
  const JsonFields fields(object, path);
  if (fields.text("format").value_or("") != kFormat) {
    fail<IoError>("{}: is no manifest of a training checkpoint", path);
  }
  if (const auto version = fields.integer("format_version").value_or(0); version != kFormatVersion) {
    fail<IoError>("{}: format_version is {}; this Caravan reads version {}", path, version, kFormatVersion);
  }
  CheckpointManifest manifest;
  manifest.id = fields.text("id").value_or("");
  if (!parse_checksum(manifest.id)) {
    fail<IoError>("{}: 'id' is not 16 hexadecimal digits", path);
  }
  manifest.state = read_state(object, path);
  manifest.tables = read_tables(object, path);
  check_complete(manifest.tables, path);
  return manifest;
}

void write_manifest(const std::string& folder, const CheckpointManifest& manifest) {
  write_file_atomically(manifest_path(folder), manifest_text(manifest));
}

CheckpointManifest read_manifest(const std::string& folder) {
  const std::string path = manifest_path(folder);
  return parse_manifest(read_text_file(path, kMaxManifestBytes), path);
}

bool has_manifest(const std::string& folder) {
  return std::filesystem::is_regular_file(manifest_path(folder));
}

}  // namespace caravan
