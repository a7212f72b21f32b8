// caravan inspect: any file or folder that Caravan reads or writes, in words
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>

#include "caravan/core/error.h"
#include "caravan/core/text_file.h"
#include "caravan/core/utf8.h"
#include "caravan/io/checkpoint_reader.h"
#include "caravan/io/params_json.h"
#include "caravan/io/results_file.h"
#include "caravan/io/run_folder.h"
#include "caravan/io/run_record.h"
#include "caravan/io/safetensors.h"
#include "caravan/io/sharded_checkpoint_reader.h"
#include "caravan/io/torch_file.h"
#include "caravan/io/training_model.h"
#include "commands.h"

namespace caravan::app {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMaxTextBytes = std::int64_t{16} << 20U;

/// "25.0 MB", decimal units as in file listings.
std::string size_text(double bytes) {
  const char* units[] = {"bytes", "kB", "MB", "GB", "TB"};
  std::size_t unit = 0;
  for (; bytes >= 1000 && unit + 1 < std::size(units); ++unit) {
    bytes /= 1000;
  }
  return unit == 0 ? fmt::format("{:.0f} bytes", bytes) : fmt::format("{:.1f} {}", bytes, units[unit]);
}

void print_model(const ModelConfig& config) {
  fmt::print("model\n");
  fmt::print("  vocab_size         {}\n",
             config.vocab_size == 0 ? "the tokenizer's" : std::to_string(config.vocab_size));
  fmt::print("  hidden_size        {}\n", config.hidden_size);
  fmt::print("  intermediate_size  {}\n", config.intermediate_size);
  fmt::print("  n_layers           {}\n", config.n_layers);
  fmt::print("  heads              {} query, {} key/value, {} wide\n", config.n_heads, config.n_kv_heads,
             config.head_dim);
  fmt::print("  rms_norm_eps       {}\n", config.rms_norm_eps);
  fmt::print("  rope_theta         {}\n", config.rope_theta);
  if (config.rope_scaling) {
    fmt::print("  rope scaling       factor {}, frequencies {} to {}, trained first on {} positions\n",
               config.rope_scaling->factor, config.rope_scaling->low_freq_factor,
               config.rope_scaling->high_freq_factor, config.rope_scaling->original_max_position);
  } else {
    fmt::print("  rope scaling       none\n");
  }
  fmt::print("  max_position       {}\n", config.max_position);
}

/// What a line of a tensor list needs.
struct Row {
  std::string name;
  std::vector<std::int64_t> shape;
  DType dtype = DType::kFloat32;
};

void print_tensors(const std::vector<Row>& rows) {
  std::size_t width = 4;
  std::map<std::string_view, double> numbers;  // double: a hostile file may list more than int64 holds
  double total_bytes = 0.0;
  double total = 0.0;
  for (const Row& row : rows) {
    double count = 1.0;
    for (const std::int64_t size : row.shape) {
      count *= static_cast<double>(size);
    }
    width = std::max(width, row.name.size());
    numbers[dtype_name(row.dtype)] += count;
    total += count;
    total_bytes += count * static_cast<double>(dtype_bytes(row.dtype));
  }
  fmt::print("tensors\n");
  for (const Row& row : rows) {
    fmt::print("  {:{}}  {:8}  [{}]\n", row.name, width, dtype_name(row.dtype), fmt::join(row.shape, ", "));
  }
  fmt::print("total\n  {} tensors, {:.0f} numbers, {}\n", rows.size(), total, size_text(total_bytes));
  for (const auto& [name, count] : numbers) {
    fmt::print("  {:.0f} {}\n", count, name);
  }
}

void print_stored(const std::vector<StoredTensor>& tensors) {
  std::vector<Row> rows;
  for (const StoredTensor& tensor : tensors) {
    rows.push_back({printable(tensor.name, LineEnds::kEscape), tensor.shape, tensor.dtype});
  }
  print_tensors(rows);
}

void print_run_record(const std::string& folder) {
  const RunRecord record = read_run_record(folder);
  const ExperimentKey& key = record.experiment;
  fmt::print("run\n");
  if (record.round) {
    fmt::print("  after round        {} of {}, {} local epochs each\n", *record.round, key.rounds,
               key.local_epochs);
  }
  if (record.step) {
    fmt::print("  after step         {}\n", *record.step);
  }
  fmt::print("  mode               {}\n", printable(record.mode, LineEnds::kEscape));
  fmt::print("  world size         {}, swapping {}\n", key.world_size, key.enable_swapping ? "on" : "off");
  for (std::size_t rank = 0; rank < record.slots.size(); ++rank) {
    fmt::print("  rank {:<13} slot {}\n", rank, record.slots[rank]);
  }
  fmt::print(
      "  learning rate      {}\n  data set           {}\n  seed               {}\n  commit             {}\n",
      key.lr, printable(key.dataset, LineEnds::kEscape), key.seed,
      printable(record.commit, LineEnds::kEscape));
  fmt::print("configuration\n{}{}", printable(record.config, LineEnds::kKeep),
             record.config.ends_with('\n') ? "" : "\n");
}

void inspect_checkpoint(const std::string& folder) {
  const auto reader = open_checkpoint(folder, std::nullopt);
  const ModelConfig& config = reader->config();
  fmt::print("{}: checkpoint in {} layout\n", folder,
             reader->layout() == CheckpointLayout::kMeta ? "Meta's" : "Hugging Face's");
  print_model(config);
  fmt::print("  output layer       {}\n  parameters         {}\n",
             reader->output_tied() ? "is the token embedding (tied)" : "is its own (untied)",
             parameter_count(config));
  std::vector<Row> rows;
  for (const TensorInfo& info : reader->tensors()) {
    std::vector<std::int64_t> shape;
    for (const Range& range : full_region(info.shape)) {
      shape.push_back(range.end);
    }
    rows.push_back({printable(info.name, LineEnds::kEscape), shape, info.dtype});
  }
  print_tensors(rows);
  if (has_run_record(folder)) {
    print_run_record(folder);
  }
  check_tensors(*reader, expected_tensors(config, DType::kFloat32));
}

void inspect_training_checkpoint(const std::string& folder) {
  ShardedCheckpointReader reader(folder);
  const TrainingState& state = reader.state();
  const auto text = [](const std::string& from_file) { return printable(from_file, LineEnds::kEscape); };
  fmt::print("{}: training checkpoint after step {}\n", folder, state.step);
  fmt::print("  written by         {} rank{}{}{}\n", state.ranks, state.ranks == 1 ? "" : "s",
             state.mesh.empty() ? "" : ", ", text(state.mesh));
  fmt::print("  optimizer step     {}\n  samples consumed   {}\n", state.optimizer_step, state.data_position);
  fmt::print("  seed               {}\n  commit             {}\n  write              {}\n", state.seed,
             text(state.commit), reader.manifest().id);
  for (const auto& [key, value] : state.extra) {
    if (key != kTrainingModelKey) {
      fmt::print("  {:18} {}\n", text(key), text(value));
    }
  }
  if (state.extra.contains(kTrainingModelKey)) {
    print_model(open_training_model(folder, std::nullopt, Tie::kAuto)->config());
  }
  std::vector<Row> rows;
  for (const GlobalTensor& tensor : reader.manifest().tables.tensors) {
    std::vector<std::int64_t> shape;
    for (const Range& range : full_region(tensor.shape)) {
      shape.push_back(range.end);
    }
    rows.push_back({text(tensor.name), shape, tensor.dtype});
  }
  print_tensors(rows);
  fmt::print("files\n");
  for (const ShardFile& file : reader.manifest().tables.files) {
    fmt::print("  {}  {}\n", file.name, size_text(static_cast<double>(file.bytes)));
  }
  fmt::print("configuration\n{}", printable(state.config, LineEnds::kKeep));
  std::fflush(stdout);  // what follows reads every byte
  reader.verify();
  fmt::print("all checksums are right\n");
}

void inspect_run_folder(const std::string& folder) {
  std::fflush(stdout);
  inspect_results_file((fs::path(folder) / kResultsFileName).string(), std::cout);
  std::cout.flush();
  std::vector<std::string> names;
  std::error_code none;  // a run without checkpoints
  for (const auto& entry : fs::directory_iterator(fs::path(folder) / kCheckpointsFolder, none)) {
    names.push_back(entry.path().string());
  }
  std::sort(names.begin(), names.end());
  fmt::print("\nCheckpoints\n");
  for (const std::string& name : names) {
    fmt::print("  {}\n", name);
  }
}

void inspect_file(const std::string& path) {
  const fs::path file(path);
  const std::string extension = file.extension().string();
  if (file.filename() == kRunRecordName) {
    return print_run_record(file.has_parent_path() ? file.parent_path().string() : ".");
  }
  if (extension == ".h5") {
    return inspect_results_file(path, std::cout);
  }
  if (extension == ".txt") {  // the log of rounds is words already
    fmt::print("{}", printable(read_text_file(path, kMaxTextBytes), LineEnds::kKeep));
    return;
  }
  if (extension == ".pth" || extension == ".pt") {
    const auto tensors = read_torch_file(path);
    fmt::print("{}: PyTorch file\n", path);
    return print_stored(tensors);
  }
  if (extension == ".safetensors") {
    const auto tensors = read_safetensors(path);
    fmt::print("{}: safetensors file\n", path);
    return print_stored(tensors);
  }
  if (path.ends_with(".safetensors.index.json")) {
    const auto tensors = read_sharded_safetensors(path);
    fmt::print("{}: index of safetensors files\n", path);
    return print_stored(tensors);
  }
  if (extension == ".json") {
    const ModelConfig config = read_model_config(path, std::nullopt);
    fmt::print("{}: model configuration\n", path);
    return print_model(config);
  }
  fail<IoError>(
      "{}: not a kind of file known here: a checkpoint or run folder, .pth, .safetensors, params.json, "
      "config.json, "
      "caravan.json, results.h5 or the round log (.txt)",
      path);
}

void inspect(const std::string& path) {
  if (!fs::is_directory(path)) {
    return inspect_file(path);
  }
  if (fs::exists(fs::path(path) / kResultsFileName)) {
    return inspect_run_folder(path);
  }
  if (has_manifest(path)) {
    return inspect_training_checkpoint(path);
  }
  inspect_checkpoint(path);
}

}  // namespace

void add_inspect_command(CLI::App& program) {
  auto path = std::make_shared<std::string>();
  CLI::App* command =
      program.add_subcommand("inspect", "print a checkpoint, weight file or results in words");
  command->add_option("path", *path, "checkpoint or run folder, or one of their files")->required();
  command->footer(
      "Examples:\n"
      "  caravan inspect Llama-3.2-1B\n"
      "  caravan inspect runs/quickstart/qa/ws1/results.h5\n"
      "  caravan inspect runs/default/checkpoints/step_00000100\n"
      "  caravan inspect model.safetensors");
  command->callback([path] { inspect(*path); });
}

}  // namespace caravan::app
