// TIMEOUT 600
// The cores of attention on the device: Caravan's own (portable, or Hopper's with CARAVAN_HOPPER_ATTENTION=1)
// and cuDNN's, op by op against the reference and in whole models against the CPU.
#include <catch2/catch.hpp>

#include "cudnn_under_test.h"
#include "host_runner/attention_problem.h"
#include "kernels/reference/attention.h"
#include "support/mesh_runs.h"

using namespace caravan;
using namespace caravan::test;

namespace {

// p and ds are rounded to bfloat16 once each, and heads of a group once more before they are added; on a GPU
// exp2 and the sums of products are the hardware's: twice the rounding of a weight for what they add.
constexpr double kForwardTolerance = 2 * 2.7 / 512.0;
constexpr double kBackwardTolerance = 2 * 4.4 / 512.0;
constexpr double kLseTolerance = 1e-5;
// Of whole models: tests/device/test_training.cpp.
constexpr double kModelLoss = 2e-3;
constexpr double kModelGradient = 3e-2;

/// A tensor's values on the device; they come back with fetch().
class OnDevice {
 public:
  OnDevice(TestTensor& tensor, Backend& backend)
      : tensor_(tensor), backend_(backend), memory_(backend.allocate(tensor.view().bytes())) {
    backend_.copy({tensor.view(), view()}, stream_);
  }
  TensorView view() const { return memory_.view(0, tensor_.view().dtype(), tensor_.view().shape()); }
  void fetch() { backend_.copy({view(), tensor_.view()}, stream_); }

 private:
  TestTensor& tensor_;
  Backend& backend_;
  Buffer memory_;
  Stream stream_;
};

/// Forward and backward on `device` against the reference.
void check_ops(Backend& device, const AttentionShape& shape) {
  INFO("batch " << shape.batch << ", " << shape.query_len << " tokens, heads " << shape.n_heads << " / "
                << shape.n_kv_heads << " of " << shape.head_dim);
  AttentionTensors p({shape}, DType::kBFloat16);
  OnDevice query_index(p.query_index, device), key_index(p.key_index, device),
      document_start(p.document_start, device), q(p.q, device), k(p.k, device), v(p.v, device),
      o(p.o, device), lse(p.lse, device), d_o(p.d_o, device), dq(p.dq, device), dk(p.dk, device),
      dv(p.dv, device);
  const AttentionMask mask{query_index.view(), key_index.view(), document_start.view(), MaskKind::kCausal};
  Stream stream;
  reference::attention_forward<double>(p.forward(reference_form));
  device.attention_forward({.shape = shape,
                            .mask = mask,
                            .q = q.view(),
                            .k = k.view(),
                            .v = v.view(),
                            .o = o.view(),
                            .lse = lse.view()},
                           stream);
  o.fetch();
  lse.fetch();
  CHECK(p.o.error() <= kForwardTolerance);
  CHECK(p.lse.error() <= kLseTolerance);
  for (TestTensor* stored : {&p.o, &p.lse}) {
    stored->fill(stored->values());
  }
  reference::attention_backward<double>(p.backward(reference_form));
  device.attention_backward({.shape = shape,
                             .mask = mask,
                             .q = q.view(),
                             .k = k.view(),
                             .v = v.view(),
                             .o = o.view(),
                             .lse = lse.view(),
                             .d_o = d_o.view(),
                             .dq = dq.view(),
                             .dk = dk.view(),
                             .dv = dv.view()},
                            stream);
  for (OnDevice* result : {&dq, &dk, &dv}) {
    result->fetch();
  }
  CHECK(p.dq.error() <= kBackwardTolerance);
  CHECK(p.dk.error() <= kBackwardTolerance);
  CHECK(p.dv.error() <= kBackwardTolerance);
}

/// Two layers with two query heads of `head_dim` and one of keys and values.
ModelConfig model_of(std::int64_t head_dim) {
  ModelConfig model = mesh_model(false);
  model.vocab_size = 251;
  model.n_heads = 2;
  model.n_kv_heads = 1;
  model.head_dim = head_dim;
  model.hidden_size = 2 * head_dim;
  model.intermediate_size = 96;
  return model;
}

constexpr std::int64_t kRows = 4;
constexpr std::int64_t kMicroBatch = 2;
constexpr std::int64_t kLongest = 20;

RunConfig config_of(DType dtype) {
  RunConfig config = mesh_config({.dp_shard = 1}, dtype, kRows, kLongest);
  config.training.micro_batch = kMicroBatch;
  return config;
}

MeshGradients gradients_on_cpu(const ModelConfig& model) {
  SelfCommunicator alone;
  return MeshRun(alone, config_of(DType::kFloat32), model).gradients(mesh_batch(0, kRows, kLongest, false));
}

void check_model(std::unique_ptr<Backend> device, const ModelConfig& model, const MeshGradients& expected) {
  SelfCommunicator alone;
  MeshRun run(alone, config_of(DType::kBFloat16), model, std::move(device));
  const MeshGradients actual = run.gradients(mesh_batch(0, kRows, kLongest, false));
  CHECK(std::abs(actual.loss - expected.loss) <= kModelLoss * std::abs(expected.loss));
  CHECK(actual.values.size() == expected.values.size());
  for (const auto& [name, values] : expected.values) {
    INFO(name);
    CAPTURE(relative_difference(actual.values.at(name), values));
    CHECK(relative_difference(actual.values.at(name), values) <= kModelGradient);
  }
}

}  // namespace

TEST_CASE("whole models with heads of 64 and 128 have the CPU's loss and gradients", "[attention]") {
  if (!device_or_skip()) {
    return;
  }
  for (const std::int64_t head_dim : {64, 128}) {
    INFO("heads of " << head_dim);
    const ModelConfig model = model_of(head_dim);
    check_model(make_cuda_backend(*device_under_test().runtime), model, gradients_on_cpu(model));
  }
}

TEST_CASE("cuDNN's attention computes what the reference does", "[attention][cudnn]") {
  const auto library = device_or_skip() ? cudnn_or_skip() : nullptr;
  if (library == nullptr) {
    return;
  }
  std::vector<AttentionShape> shapes = {attention_shape(2, 13, 13, 4, 2, 64),
                                        attention_shape(1, 9, 9, 2, 2, 128)};
  if (kIsFakeCudnn) {
    shapes.push_back(attention_shape(3, 1, 1, 2, 1, 64));
  } else {
    shapes.push_back(attention_shape(2, 128, 128, 8, 2, 64));
    shapes.push_back(attention_shape(2, 130, 130, 8, 2, 64));
    shapes.push_back(attention_shape(2, 1027, 1027, 4, 4, 128));
    shapes.push_back(attention_shape(1, 512, 512, 6, 2, 80));
  }
  for (const AttentionShape& shape : shapes) {
    const auto device = make_cuda_backend(*device_under_test().runtime, cudnn_attention(library, shape));
    const std::int64_t before = kIsFakeCudnn ? fake_executions(*library) : 0;
    check_ops(*device, shape);
    CHECK((!kIsFakeCudnn || fake_executions(*library) == before + 2));
  }
}

TEST_CASE("with cuDNN's attention whole models have the CPU's loss and gradients", "[attention][cudnn]") {
  const auto library = device_or_skip() ? cudnn_or_skip() : nullptr;
  if (library == nullptr) {
    return;
  }
  for (const std::int64_t head_dim : {64, 128}) {
    INFO("heads of " << head_dim);
    const ModelConfig model = model_of(head_dim);
    const AttentionShape largest = attention_shape(kMicroBatch, kLongest, kLongest, 2, 1, head_dim);
    const std::int64_t before = kIsFakeCudnn ? fake_executions(*library) : 0;
    check_model(make_cuda_backend(*device_under_test().runtime, cudnn_attention(library, largest)), model,
                gradients_on_cpu(model));
    // Two micro-batches of two layers, forward and backward.
    CHECK((!kIsFakeCudnn || fake_executions(*library) == before + 8));
  }
}
