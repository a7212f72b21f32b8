// Seconds that one save or one load of a checkpoint takes, the way training does both. The memory is
// allocated and touched before the clock starts; caches are the caller's business (checkpoint_io.py drops
// them).
//   benchmark_checkpoint_io save meta|hf float32|bfloat16 FOLDER    about 2 GB of random parameters
//   benchmark_checkpoint_io load FOLDER [THREADS]                   every tensor into float32 memory
#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "caravan/backend/buffer.h"
#include "caravan/core/clock.h"
#include "caravan/core/counter_rng.h"
#include "caravan/core/error.h"
#include "caravan/core/parallel_for.h"
#include "caravan/io/checkpoint_reader.h"
#include "caravan/io/checkpoint_writer.h"
#include "caravan/train/save_model.h"

using namespace caravan;

namespace {

/// Llama 3.2 1B with as many layers as give 2 GB.
ModelConfig model_of(DType dtype) {
  ModelConfig config = model_preset("llama3.2-1b").value();
  config.n_layers = dtype == DType::kFloat32 ? 4 : 12;
  return config;
}

struct Tensor {
  TensorInfo info;
  Buffer memory;  // as a model's parameters have it
  TensorView view() const { return memory.view(0, info.dtype, info.shape); }
};

std::vector<Tensor> allocate(const std::vector<TensorInfo>& infos, DType dtype) {
  std::vector<Tensor> tensors;
  for (const TensorInfo& info : infos) {
    const auto bytes = info.shape.numel() * static_cast<std::int64_t>(dtype_bytes(dtype));
    Tensor tensor{{info.name, info.shape, dtype}, allocate_host(bytes)};
    std::memset(tensor.view().raw(), 1, static_cast<std::size_t>(bytes));
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

/// Numbers of the size weights have: 2^-7 to 2^-6 with random signs and digits, the same few MiB again and
/// again.
void fill(std::vector<Tensor>& tensors) {
  const bool is_single = tensors.front().info.dtype == DType::kFloat32;
  const std::uint64_t digits = is_single ? 0x807FFFFF807FFFFFULL : 0x807F807F807F807FULL;
  const std::uint64_t exponent = is_single ? 0x3C0000003C000000ULL : 0x3C003C003C003C00ULL;
  const CounterRng rng(1, stream_id("benchmark"));
  std::vector<std::uint64_t> pattern(std::size_t{1} << 20U);
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    pattern[i] = (rng.below(i, std::uint64_t{1} << 63U) * 2 & digits) | exponent;
  }
  for (Tensor& tensor : tensors) {
    const auto bytes = static_cast<std::size_t>(tensor.view().bytes());
    for (std::size_t at = 0; at < bytes; at += 8 * pattern.size()) {
      std::memcpy(static_cast<std::byte*>(tensor.view().raw()) + at, pattern.data(),
                  std::min(8 * pattern.size(), bytes - at));
    }
  }
}

double peak_resident_mb() {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.starts_with("VmHWM:")) {
      return std::stod(line.substr(6)) / 1024;
    }
  }
  return 0.0;
}

void report(double seconds, std::int64_t bytes, double peak_before) {
  fmt::print("{{\"seconds\": {:.4f}, \"bytes\": {}, \"more_memory_mb\": {:.1f}}}\n", seconds, bytes,
             peak_resident_mb() - peak_before);
}

std::int64_t bytes_in(const std::string& folder) {
  std::int64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    bytes += static_cast<std::int64_t>(entry.file_size());
  }
  return bytes;
}

void save(const std::string& layout, const std::string& type, const std::string& folder) {
  const DType dtype = type == "float32" ? DType::kFloat32 : DType::kBFloat16;
  const ModelConfig config = model_of(dtype);
  std::vector<Tensor> tensors = allocate(expected_tensors(config, dtype), dtype);
  fill(tensors);
  std::vector<TensorSource> sources;
  for (const Tensor& tensor : tensors) {
    sources.push_back(source_of(tensor.info.name, tensor.view()));
  }
  CheckpointWriteOptions options;
  options.if_exists = IfExists::kReplace;
  const double before = peak_resident_mb();
  const StopWatch watch;
  (layout == "hf" ? write_hf_checkpoint : write_meta_checkpoint)(folder, config, sources, options);
  report(watch.seconds(), bytes_in(folder), before);
}

/// Lets the host of a virtual machine give back what the page cache will take: what checkpoint_io.py touched
/// is gone again when parameters have been touched for some seconds.
void fetch_free_memory(std::int64_t bytes) {
  const Buffer memory = allocate_host(bytes);
  const TensorView view = memory.view(0, DType::kInt32, {bytes / 4});
  std::memset(view.raw(), 1, static_cast<std::size_t>(view.bytes()));
}

void load(const std::string& folder, int threads) {
  set_thread_count(threads);
  std::vector<Tensor> tensors;
  {
    const auto reader = open_checkpoint(folder, std::nullopt, Tie::kTied);
    tensors = allocate(expected_tensors(reader->config(), DType::kFloat32), DType::kFloat32);
  }
  fetch_free_memory(bytes_in(folder));
  std::ofstream("/proc/self/clear_refs") << "5\n";  // the peak of resident memory begins anew
  const double before = peak_resident_mb();
  const StopWatch watch;
  const auto reader = open_checkpoint(folder, std::nullopt);
  check_tensors(*reader, expected_tensors(reader->config(), DType::kFloat32));
  for (const std::string& name : reader->reading_order()) {
    const auto at = std::find_if(tensors.begin(), tensors.end(),
                                 [&](const Tensor& tensor) { return tensor.info.name == name; });
    reader->read(name, full_region(at->info.shape), at->view());
  }
  report(watch.seconds(), bytes_in(folder), before);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  try {
    if (words.size() == 4 && words[0] == "save") {
      save(words[1], words[2], words[3]);
      return 0;
    }
    if ((words.size() == 2 || words.size() == 3) && words[0] == "load") {
      load(words[1], words.size() == 3 ? std::stoi(words[2]) : 1);
      return 0;
    }
  } catch (const std::exception& error) {
    fmt::print(stderr, "benchmark_checkpoint_io: {}\n", error.what());
    return 1;
  }
  fmt::print(stderr,
             "usage: benchmark_checkpoint_io save meta|hf float32|bfloat16 FOLDER\n"
             "       benchmark_checkpoint_io load FOLDER [THREADS]\n");
  return 2;
}
