// Bytes per second of saving and loading a training checkpoint, beside writing and reading the same bytes
// plainly (what dd conv=fsync does). Ranks are simulated one after the other in one process: one disk is what
// is measured.
//   benchmark_sharded_checkpoint FOLDER [MiB per rank] [ranks] [repetitions]
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <numeric>
#include <vector>

#include "caravan/core/build_info.h"
#include "caravan/core/checksum.h"
#include "caravan/core/clock.h"
#include "caravan/core/error.h"
#include "caravan/io/checkpoint_store.h"
#include "caravan/io/sharded_checkpoint_reader.h"
#include "caravan/io/sharded_checkpoint_writer.h"

using namespace caravan;
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kColumns = 4096;
constexpr const char* kId = "0123456789abcdef";

struct Setup {
  std::string folder;
  std::int64_t rows_per_rank = 0;
  std::int64_t ranks = 1;
  std::vector<float> values;  // what every rank writes

  GlobalTensor tensor() const { return {"weight", {rows_per_rank * ranks, kColumns}, DType::kFloat32}; }
  std::int64_t rank_bytes() const { return rows_per_rank * kColumns * 4; }
  std::int64_t bytes() const { return rank_bytes() * ranks; }
};

/// Written pages leave the cache, so that reading means the disk. Needs no rights; a hint to the system.
void forget(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY);
  ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
  ::close(file);
}

void forget_all(const std::string& folder) {
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) {
      forget(entry.path().string());
    }
  }
}

void save(const Setup& setup) {
  OutputFolder folder(setup.folder + "/" + step_folder_name(1), IfExists::kReplace);
  std::vector<CheckpointTables> reports;
  for (std::int64_t rank = 0; rank < setup.ranks; ++rank) {
    ShardSource source{
        .tensor = setup.tensor(),
        .region = {{rank * setup.rows_per_rank, (rank + 1) * setup.rows_per_rank}, {0, kColumns}},
        .data = reinterpret_cast<const std::byte*>(setup.values.data()),
        .read = {}};
    ShardedCheckpointWriter writer({kId, 1, rank}, {source});
    writer.open(folder.temporary_path());
    reports.push_back(writer.write());
  }
  TrainingState state;
  state.step = 1;
  write_manifest(folder.temporary_path(), merge_tables(kId, state, reports));
  folder.commit();
}

/// By rows as it was written (`columns` 1), or in parts of whole columns.
void load(const Setup& setup, std::int64_t columns) {
  std::vector<float> values(static_cast<std::size_t>(setup.bytes() / 4 / columns));
  for (std::int64_t part = 0; part < columns; ++part) {
    ShardedCheckpointReader reader(setup.folder + "/" + step_folder_name(1));
    const Region region = {{0, setup.rows_per_rank * setup.ranks},
                           {part * kColumns / columns, (part + 1) * kColumns / columns}};
    reader.read("weight", region, TensorView(values.data(), DType::kFloat32, region_shape(region)));
  }
}

void write_plainly(const Setup& setup) {
  for (std::int64_t rank = 0; rank < setup.ranks; ++rank) {
    OutputFile file(fmt::format("{}/plain{}", setup.folder, rank));
    file.write(std::as_bytes(std::span(setup.values)));
    file.commit();
  }
}

void read_plainly(const Setup& setup) {
  std::vector<std::byte> block(std::size_t{1} << 20U);
  for (std::int64_t rank = 0; rank < setup.ranks; ++rank) {
    const InputFile file(fmt::format("{}/plain{}", setup.folder, rank));
    for (std::int64_t at = 0; at < file.size(); at += static_cast<std::int64_t>(block.size())) {
      file.read_at(at, std::span(block).first(static_cast<std::size_t>(
                           std::min(file.size() - at, static_cast<std::int64_t>(block.size())))));
    }
  }
}

void measure(const char* what, std::int64_t bytes, int repetitions, const std::function<void()>& before,
             const std::function<void()>& work) {
  std::vector<double> rates;
  for (int i = 0; i < repetitions; ++i) {
    before();
    const StopWatch watch;
    work();
    rates.push_back(static_cast<double>(bytes) / watch.seconds() / 1e6);
  }
  std::sort(rates.begin(), rates.end());
  fmt::print("{:38} median {:7.0f} MB/s, {:.0f} to {:.0f}\n", what, rates[rates.size() / 2], rates.front(),
             rates.back());
}

void run(Setup setup, int repetitions) {
  setup.values.resize(static_cast<std::size_t>(setup.rank_bytes() / 4));
  std::iota(setup.values.begin(), setup.values.end(), 0.0F);
  const auto nothing = [] {};
  const auto forget_folder = [&] { forget_all(setup.folder); };
  fmt::print("{} {}: {} ranks of {} MB, {} repetitions\n", build_info().commit, build_info().build_type,
             setup.ranks, setup.rank_bytes() / 1'000'000, repetitions);
  const std::int64_t bytes = setup.bytes();
  std::uint64_t sum = 0;
  measure("checksum, one thread", setup.rank_bytes(), repetitions, nothing,
          [&] { sum += checksum_of(std::as_bytes(std::span(setup.values))); });
  measure("write plainly and flush", bytes, repetitions, nothing, [&] { write_plainly(setup); });
  measure("save", bytes, repetitions, nothing, [&] { save(setup); });
  measure("read plainly, from the disk", bytes, repetitions, forget_folder, [&] { read_plainly(setup); });
  measure("load as written, from the disk", bytes, repetitions, forget_folder, [&] { load(setup, 1); });
  measure("read plainly, from memory", bytes, repetitions, nothing, [&] { read_plainly(setup); });
  measure("load as written, from memory", bytes, repetitions, nothing, [&] { load(setup, 1); });
  measure("load by columns in 4 parts, each reads all", bytes, repetitions, nothing, [&] { load(setup, 4); });
  fmt::print("(checksum {:x})\n", sum);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "benchmark_sharded_checkpoint FOLDER [MiB per rank] [ranks] [repetitions]\n");
    return 2;
  }
  Setup setup;
  setup.folder = std::string(argv[1]) + "/sharded_checkpoint_benchmark";
  setup.rows_per_rank = (argc > 2 ? std::atoll(argv[2]) : 256) * (std::int64_t{1} << 20U) / (kColumns * 4);
  setup.ranks = argc > 3 ? std::atoll(argv[3]) : 4;
  fs::create_directories(setup.folder);
  run(setup, argc > 4 ? std::atoi(argv[4]) : 5);
  fs::remove_all(setup.folder);
}
