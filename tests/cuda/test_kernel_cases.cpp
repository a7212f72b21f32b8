// LABELS cuda-build
// What the kernel benchmark says a launch moves or computes, against what the counting backend counts for the
// same op.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>

#include "benchmarks/cuda/kernel_cases.h"
#include "caravan/backend/counting_backend.h"

using namespace caravan;
using namespace caravan::benchmark;

namespace {

/// Tensors without memory.
class Shapes final : public TensorSource {
 public:
  TensorView random(DType dtype, const Shape& shape) override {
    return {nullptr, dtype, shape, Device{DeviceKind::kNone, 0}};
  }
  TensorView ids(std::int64_t count, std::int64_t bound) override {
    CHECK(bound > 0);
    return random(DType::kInt32, {count});
  }
  TensorView places(std::int64_t count, std::int64_t period) override {
    CHECK(count % period == 0);
    return random(DType::kInt32, {count});
  }
  cuda::Workspace workspace(std::int64_t bytes) override { return {nullptr, bytes}; }
  const StepScalars* scalars() override { return nullptr; }
  const UpdateState* update_state() override { return nullptr; }
};

constexpr BatchShape kBatch{.tokens = 4096, .seq_len = 1024, .logits_rows = 512};

}  // namespace

TEST_CASE("bytes and operations of every benchmarked kernel are those that the table counts", "[cuda]") {
  for (const char* name : {"llama3.2-1b", "llama3.2-3b", "llama3.1-8b"}) {
    Shapes shapes;
    for (const CaseMaker& make : kernel_cases(*model_preset(name), kBatch)) {
      const KernelCase one = make(shapes);
      INFO(name << ", " << one.name);
      CHECK((one.bytes > 0) != (one.flops > 0));
      CHECK(one.launch != nullptr);
      if (one.count == nullptr) {
        continue;
      }
      CountingBackend table;
      Stream stream;
      one.count(table, stream);
      CHECK(table.work().ops == 1);
      CHECK(table.work().other_bytes == one.bytes - one.beyond_table);
      CHECK(table.work().attention_flops == one.flops);
    }
  }
}

TEST_CASE("every file of kernels is benchmarked", "[cuda]") {
  // Rows of the benchmark by the file whose kernels they time.
  const std::map<std::string, std::vector<std::string>> rows = {
      {"activation", {"swiglu_forward", "swiglu_backward"}},
      {"attention", {"attention_forward float32", "attention_backward float32"}},
      {"attention_heads", {"attention_merge"}},  // and a part of attention_backward
      {"attention_tensor_core", {"attention_forward", "attention_backward"}},
      {"dropout", {"dropout"}},
      {"elementwise", {"add", "scale", "copy of columns", "copy float32 to bfloat16", "random_normal"}},
      {"embedding", {"embedding_forward", "embedding_backward"}},
      {"loss",
       {"cross_entropy_stats", "cross_entropy_rescale", "cross_entropy_loss", "cross_entropy_backward",
        "cross_entropy", "cross_entropy, losses alone"}},
      {"hopper/attention", {}},  // the choice, and the backward pass of its parts
      {"hopper/attention_dkdv", {"attention_backward hopper"}},
      {"hopper/attention_dq", {"attention_backward hopper"}},
      {"hopper/attention_forward", {"attention_forward hopper"}},
      {"update_state", {}},  // one thread, a few numbers a step: there is no rate to speak of
      {"norm", {"rmsnorm_forward"}},
      {"norm_backward", {"rmsnorm_backward"}},
      {"optimizer", {"adamw", "adamw stochastic rounding", "sum", "sum_squares"}},
      {"rope", {"rope"}},
      {"transpose", {"transpose"}},
  };
  Shapes shapes;
  std::set<std::string> names;
  for (const CaseMaker& make : kernel_cases(*model_preset("llama3.2-1b"), kBatch)) {
    CHECK(names.insert(make(shapes).name).second);
  }
  const char* source = std::getenv("CARAVAN_SOURCE_DIR");
  REQUIRE(source != nullptr);
  if (std::filesystem::exists(std::filesystem::path(source) / "BUNDLE")) {
    WARN("the sources are not compared: a bundle has none");
    return;
  }
  const std::filesystem::path folder = std::filesystem::path(source) / "kernels/cuda";
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.path().extension() != ".cu") {
      continue;
    }
    ++files;
    const std::string file = entry.path().lexically_relative(folder).replace_extension().string();
    INFO(file << ".cu");
    REQUIRE(rows.contains(file));
    for (const std::string& name : rows.at(file)) {
      INFO(name);
      CHECK(names.contains(name));
    }
  }
  CHECK(files == rows.size());
}

TEST_CASE("a layer of the 3B model moves what a step's budget says", "[cuda]") {
  // Per token in units of 2 bytes: RMSNorm 4 D each way, SwiGLU 3 F and 5 F, the rotary embedding of queries
  // 2 H E.
  Shapes shapes;
  const ModelConfig model = *model_preset("llama3.2-3b");
  for (const CaseMaker& make : kernel_cases(model, kBatch)) {
    const KernelCase one = make(shapes);
    const std::int64_t per_token = one.bytes / kBatch.tokens;
    if (one.name == "rmsnorm_forward" || one.name == "rmsnorm_backward") {
      CHECK(per_token == 8 * 3072);
    } else if (one.name == "swiglu_forward") {
      CHECK(per_token == 6 * 8192);
    } else if (one.name == "swiglu_backward") {
      CHECK(per_token == 10 * 8192);
    } else if (one.name == "rope") {
      CHECK(per_token == 4 * 24 * 128);
    } else if (one.name == "adamw") {  // with a float32 master copy
      CHECK(one.bytes == std::int64_t{30} * 8192 * 3072);
    }
  }
}
