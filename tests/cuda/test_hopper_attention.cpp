// LABELS gpu
// TIMEOUT 900
// Attention on a GPU's tensor cores against the reference in double, at small odd shapes: the portable
// kernels, and on a GPU of compute capability 9.0 those for Hopper. Each shape runs in a process of its own
// under a time limit, because a wrong barrier does not fail, it waits; the others still run.
#include <cuda_runtime.h>
#include <sys/wait.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "host_runner/attention_problem.h"
#include "kernels/cuda/attention_choice.h"
#include "kernels/cuda/device_count.h"
#include "kernels/cuda/hopper/launchers.h"
#include "kernels/cuda/launch_status.h"
#include "kernels/reference/attention.h"
#include "support/shared_files.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr int kSecondsPerCase = 20;
constexpr int kHopper = 90;  // compute capabilities
constexpr int kTensorCores = 80;
const char* const kCaseVariable = "CARAVAN_TEST_HOPPER_CASE";
const char* const kOneCase = "one shape on the GPU";

// As on the host (tests/host_runner/test_hopper_attention.cpp). exp2 and the sums of products are the
// hardware's: twice the rounding of a weight for what they add.
constexpr double kForwardTolerance = 2 * 2.7 / 512.0;
constexpr double kBackwardTolerance = 2 * 3.4 / 512.0;
constexpr double kLseTolerance = 1e-5;

struct GpuCase {
  const char* name;
  AttentionCase problem;
  bool is_plain = false;  // the forward pass without overlap
};

/// From one tile to rings that go round several times; the first to fail says where to look.
std::vector<GpuCase> cases() {
  return {{"one tile, one head", {attention_shape(1, 64, 64, 1, 1, 64)}, true},
          {"one tile, one head", {attention_shape(1, 64, 64, 1, 1, 64)}},
          {"one tile, two panels", {attention_shape(1, 64, 64, 1, 1, 128)}, true},
          {"one tile, two panels", {attention_shape(1, 64, 64, 1, 1, 128)}},
          {"one token", {attention_shape(1, 1, 1, 1, 1, 128)}},
          {"cut tiles, groups", {attention_shape(2, 150, 150, 4, 2, 64)}},
          {"cut tiles, groups", {attention_shape(2, 129, 129, 6, 2, 128)}},
          {"rings go round", {attention_shape(1, 1027, 1027, 2, 1, 64)}, true},
          {"rings go round", {attention_shape(1, 1027, 1027, 2, 1, 64)}},
          {"rings go round", {attention_shape(1, 1027, 1027, 2, 1, 128)}},
          {"documents", {attention_shape(2, 700, 700, 2, 2, 64), Mask::kDocuments, 0, 190}},
          {"documents", {attention_shape(1, 700, 700, 2, 1, 128), Mask::kDocuments, 0, 45}},
          {"some queries see nothing", {attention_shape(1, 70, 300, 3, 3, 64), Mask::kLater}},
          {"all keys before", {attention_shape(1, 130, 640, 2, 1, 128), Mask::kBefore}},
          {"no key is seen", {attention_shape(1, 66, 66, 1, 1, 128), Mask::kBehind}},
          {"zigzag", {attention_shape(1, 140, 280, 1, 1, 128), Mask::kZigZag}},
          {"many blocks", {attention_shape(4, 515, 515, 16, 4, 64)}}};
}

/// A tensor's bytes on the device; they come back with fetch().
class OnDevice {
 public:
  explicit OnDevice(TestTensor& tensor) : tensor_(tensor), bytes_(tensor.bits().size()) {
    cuda::check_launch("cudaMalloc", cudaMalloc(&data_, std::max<std::size_t>(bytes_, 1)));
    cuda::check_launch("cudaMemcpy", cudaMemcpy(data_, tensor.view().raw(), bytes_, cudaMemcpyHostToDevice));
  }
  ~OnDevice() { cudaFree(data_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  OnDevice(OnDevice&&) = delete;
  OnDevice& operator=(OnDevice&&) = delete;

  TensorView view() const { return {data_, tensor_.view().dtype(), tensor_.view().shape()}; }
  void fetch() {
    cuda::check_launch("cudaMemcpy", cudaMemcpy(tensor_.view().raw(), data_, bytes_, cudaMemcpyDeviceToHost));
  }

 private:
  TestTensor& tensor_;
  std::size_t bytes_;
  void* data_ = nullptr;
};

struct Errors {
  double o, lse, dq, dk, dv;
};
struct Results {
  Errors errors;
  std::vector<std::vector<unsigned char>> bits;
};

/// Forward and backward on the device, against the reference in double.
Results run(const GpuCase& c, bool is_hopper) {
  AttentionTensors p(c.problem, DType::kBFloat16);
  reference::attention_forward<double>(p.forward(reference_form));
  OnDevice query_index(p.query_index), key_index(p.key_index), document_start(p.document_start), q(p.q),
      k(p.k), v(p.v), o(p.o), lse(p.lse), d_o(p.d_o), dq(p.dq), dk(p.dk), dv(p.dv);
  const AttentionMask mask{query_index.view(), key_index.view(), document_start.view()};
  const AttentionForwardArgs forward{.shape = p.shape,
                                     .mask = mask,
                                     .q = q.view(),
                                     .k = k.view(),
                                     .v = v.view(),
                                     .o = o.view(),
                                     .lse = lse.view()};
  if (!is_hopper) {
    cuda::attention_forward(forward, nullptr);
  } else if (c.is_plain) {
    cuda::hopper::attention_forward_plain(forward, nullptr);
  } else {
    cuda::hopper::attention_forward(forward, nullptr);
  }
  cuda::check_launch("forward", cudaDeviceSynchronize());
  o.fetch();
  lse.fetch();
  Errors errors{p.o.error(), p.lse.error(), 0.0, 0.0, 0.0};
  for (TestTensor* stored : {&p.o, &p.lse}) {
    stored->fill(stored->values());
  }
  reference::attention_backward<double>(p.backward(reference_form));
  const std::int64_t bytes = cuda::attention_backward_workspace_bytes(p.shape);
  TestTensor scratch(DType::kFloat32, {(bytes + 3) / 4});
  OnDevice workspace(scratch);
  const AttentionBackwardArgs backward{.shape = p.shape,
                                       .mask = mask,
                                       .q = q.view(),
                                       .k = k.view(),
                                       .v = v.view(),
                                       .o = o.view(),
                                       .lse = lse.view(),
                                       .d_o = d_o.view(),
                                       .dq = dq.view(),
                                       .dk = dk.view(),
                                       .dv = dv.view()};
  const cuda::Workspace memory{workspace.view().raw(), bytes};
  if (is_hopper) {
    cuda::hopper::attention_backward(backward, memory, nullptr);
  } else {
    cuda::attention_backward(backward, memory, nullptr);
  }
  cuda::check_launch("backward", cudaDeviceSynchronize());
  for (OnDevice* result : {&dq, &dk, &dv}) {
    result->fetch();
  }
  errors.dq = p.dq.error();
  errors.dk = p.dk.error();
  errors.dv = p.dv.error();
  return {errors, {p.o.bits(), p.lse.bits(), p.dq.bits(), p.dk.bits(), p.dv.bits()}};
}

void print(const GpuCase& c, const char* kernels, const Errors& e) {
  const AttentionShape& s = c.problem.shape;
  std::printf(
      "%s, %s%s: batch %lld, %lld queries, %lld keys, heads %lld/%lld of %lld: o %.1e lse %.1e dq %.1e dk "
      "%.1e dv %.1e\n",
      c.name, kernels, c.is_plain ? " without overlap" : "", static_cast<long long>(s.batch),
      static_cast<long long>(s.query_len), static_cast<long long>(s.key_len),
      static_cast<long long>(s.n_heads), static_cast<long long>(s.n_kv_heads),
      static_cast<long long>(s.head_dim), e.o, e.lse, e.dq, e.dk, e.dv);
}

int attribute(cudaDeviceAttr which) {
  int value = 0;
  cuda::check_launch("cudaDeviceGetAttribute", cudaDeviceGetAttribute(&value, which, 0));
  return value;
}

/// 90 for 9.0.
int compute_capability() {
  return 10 * attribute(cudaDevAttrComputeCapabilityMajor) + attribute(cudaDevAttrComputeCapabilityMinor);
}

/// "" when there is a GPU that the kernels run on.
std::string reason_to_skip(bool is_hopper) {
  const cuda::DeviceCount devices = cuda::count_devices();
  if (devices.count == 0) {
    return devices.reason_for_none;
  }
  const int capability = compute_capability();
  if (is_hopper ? capability == kHopper : capability >= kTensorCores) {
    return "";
  }
  return "the GPU has compute capability " + std::to_string(capability / 10) + "." +
         std::to_string(capability % 10) + (is_hopper ? ", not 9.0" : ", below 8.0");
}

/// False, with the reason said, where there is no such GPU.
bool gpu_or_skip(bool is_hopper) {
  const std::string reason = reason_to_skip(is_hopper);
  if (!reason.empty()) {
    WARN("skipped: " << (is_hopper ? "the kernels for Hopper: " : "") << reason);
    something_was_skipped() = true;
  }
  return reason.empty();
}

void check(const Errors& errors) {
  CHECK(errors.o <= kForwardTolerance);
  CHECK(errors.lse <= kLseTolerance);
  CHECK(errors.dq <= kBackwardTolerance);
  CHECK(errors.dk <= kBackwardTolerance);
  CHECK(errors.dv <= kBackwardTolerance);
}

}  // namespace

TEST_CASE("one shape on the GPU", "[.one]") {
  const char* number = std::getenv(kCaseVariable);
  REQUIRE(number != nullptr);
  const GpuCase c = cases().at(static_cast<std::size_t>(std::atoi(number)));
  setenv("CARAVAN_HOPPER_ATTENTION", "0", 1);  // run() chooses
  cuda::choose_attention(compute_capability(), attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
  const Errors portable = run(c, false).errors;
  print(c, "portable", portable);
  check(portable);
  if (reason_to_skip(true).empty()) {
    const Errors hopper = run(c, true).errors;
    print(c, "Hopper", hopper);
    check(hopper);
  }
}

TEST_CASE("portable and Hopper attention agree with the reference", "[gpu]") {
  if (!gpu_or_skip(false)) {
    return;
  }
  gpu_or_skip(true);
  const std::string program = std::filesystem::read_symlink("/proc/self/exe").string();
  for (std::size_t i = 0; i < cases().size(); ++i) {
    const std::string command = std::string(kCaseVariable) + "=" + std::to_string(i) + " timeout " +
                                std::to_string(kSecondsPerCase) + " '" + program + "' '" + kOneCase + "'";
    INFO("case " << i << ", " << cases()[i].name << "; again by: " << command);
    std::fflush(nullptr);
    const int status = std::system(command.c_str());
    if (WIFEXITED(status) && WEXITSTATUS(status) == 124) {
      FAIL_CHECK("not done after " << kSecondsPerCase << " s: a barrier waits for ever");
    } else {
      CHECK(status == 0);
    }
  }
}

TEST_CASE("the Hopper kernels give the same bits twice", "[gpu]") {
  if (!gpu_or_skip(true)) {
    return;
  }
  const GpuCase c{"twice", {attention_shape(2, 515, 515, 8, 2, 128)}};
  CHECK((run(c, true).bits == run(c, true).bits));
}
