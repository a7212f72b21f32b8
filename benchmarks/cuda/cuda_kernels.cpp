// Rates of the GPU kernels at the shapes of Llama 3.2 1B and 3B and Llama 3.1 8B, beside the rates of
// a copy and a product on the same GPU in the same run. One line per kernel:
//   benchmark_cuda_kernels [WORD [TOKENS [SEQ_LEN]]]     kernels whose name has the word; 16384 tokens in
//   rows of 1024
#include <fmt/core.h>

#include <cstdlib>
#include <memory>

#include "benchmarks/cuda/ceilings.h"
#include "benchmarks/cuda/device_tensors.h"
#include "benchmarks/cuda/kernel_cases.h"

namespace {

using namespace caravan;
using namespace caravan::benchmark;

/// What rates are held against, measured before them.
struct Best {
  double bytes_per_second = 0.0;  // of a copy, read and written
  double flops = 0.0;             // of a bfloat16 product
};
Best measure_best() {
  cuda::OpenDevice device = cuda::open_device(0);
  Ceilings ceilings(device);
  const Best best{.bytes_per_second = ceilings.copy(), .flops = ceilings.product()};
  fmt::print(
      "copy ceiling: {:.3f} TB/s read and written; product ceiling: {:.1f} TFLOP/s, bfloat16, 8192^3\n",
      best.bytes_per_second * 1e-12, best.flops * 1e-12);
  return best;
}

/// So many sets of a case's tensors that the L2 cache holds nothing of the next launch's.
std::size_t copies_for(std::int64_t bytes) {
  cudaDeviceProp properties{};
  check("cudaGetDeviceProperties", cudaGetDeviceProperties(&properties, 0));
  const auto wanted = 4 * static_cast<std::int64_t>(properties.l2CacheSize);
  return static_cast<std::size_t>(std::clamp<std::int64_t>((wanted + bytes - 1) / bytes, 1, 64));
}

void time_case(const CaseMaker& make, const std::string& word, const Best& best) {
  std::vector<std::unique_ptr<DeviceTensors>> tensors;
  std::vector<KernelCase> cases;
  const auto add = [&] {
    tensors.push_back(std::make_unique<DeviceTensors>());
    cases.push_back(make(*tensors.back()));
  };
  add();
  if (cases.front().name.find(word) == std::string::npos || (cases.front().runs && !cases.front().runs())) {
    return;
  }
  const std::size_t copies = copies_for(tensors.front()->bytes());
  while (cases.size() < copies) {
    add();
  }
  const Timing timing =
      time_launches([&](int i) { cases[static_cast<std::size_t>(i) % cases.size()].launch(nullptr); });
  const KernelCase& one = cases.front();
  const double amount = static_cast<double>(one.bytes > 0 ? one.bytes : one.flops) / timing.median;
  const std::string rate = one.bytes > 0 ? fmt::format("{:7.3f} TB/s {:5.1f} % of copy", amount * 1e-12,
                                                       100.0 * amount / best.bytes_per_second)
                                         : fmt::format("{:7.1f} TFLOP/s {:5.1f} % of product", amount * 1e-12,
                                                       100.0 * amount / best.flops);
  fmt::print("{:28} {:44} {:9.1f} us ± {:4.1f} % {}\n", one.name, one.shape, timing.median * 1e6,
             100.0 * timing.spread / timing.median, rate);
}

void run(const std::string& word, const BatchShape& batch) {
  const cuda::DeviceCount devices = cuda::count_devices();
  if (devices.count == 0) {
    fail<DeviceError>("{}", devices.reason_for_none);
  }
  cudaDeviceProp properties{};
  check("cudaGetDeviceProperties", cudaGetDeviceProperties(&properties, 0));
  fmt::print("{}, sm_{}{}, {} multiprocessors, L2 {} MiB\n", properties.name, properties.major,
             properties.minor, properties.multiProcessorCount, properties.l2CacheSize >> 20);
  const Best best = measure_best();
  for (const char* name : {"llama3.2-1b", "llama3.2-3b", "llama3.1-8b"}) {
    fmt::print("\n{}, {} tokens in rows of {}, bfloat16\n", name, batch.tokens, batch.seq_len);
    for (const CaseMaker& make : kernel_cases(*model_preset(name), batch)) {
      time_case(make, word, best);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    BatchShape batch;
    batch.tokens = argc > 2 ? std::atoll(argv[2]) : batch.tokens;
    batch.seq_len = argc > 3 ? std::atoll(argv[3]) : batch.seq_len;
    if (batch.seq_len < 1 || batch.tokens < 1 || batch.tokens % batch.seq_len != 0) {
      fail<ConfigError>("{} tokens cannot be divided into rows of {}", batch.tokens, batch.seq_len);
    }
    run(argc > 1 ? argv[1] : "", batch);
  } catch (const std::exception& error) {
    fmt::print(stderr, "benchmark_cuda_kernels: {}\n", error.what());
    return 1;
  }
  return 0;
}
