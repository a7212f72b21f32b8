// cuDNN's attention graphs, executed by the fake cuDNN one operation after the other, against the reference;
// and their tensors and operations put before the real cuDNN where there is one.
#include "kernels/cudnn/attention.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <string>
#include <vector>

#include "caravan/core/error.h"
#include "host_runner/attention_problem.h"
#include "kernels/reference/attention.h"

using namespace caravan;
using namespace caravan::test;
using Catch::Matchers::Contains;

namespace {

// p and ds are rounded to bfloat16 once each, as in Caravan's own tensor-core kernels, and heads of a group
// once more before they are added.
constexpr double kForwardTolerance = 2.7 / 512.0;
constexpr double kBackwardTolerance = 4.4 / 512.0;

std::shared_ptr<const cudnn::Library> fake() {
  static const auto library = std::make_shared<const cudnn::Library>(CARAVAN_FAKE_CUDNN);
  return library;
}

}  // namespace

TEST_CASE("the graphs of cuDNN's attention compute causal attention and its gradients", "[cudnn]") {
  const auto dtype = GENERATE(DType::kBFloat16, DType::kFloat16);
  const double rounding = dtype == DType::kFloat16 ? 1.0 / 8.0 : 1.0;  // to 2^-12 instead of 2^-9
  for (const AttentionShape& shape : {attention_shape(1, 5, 5, 1, 1, 8), attention_shape(2, 13, 13, 4, 2, 16),
                                      attention_shape(2, 9, 9, 3, 3, 64)}) {
    INFO(dtype_name(dtype) << ", batch " << shape.batch << ", " << shape.query_len << " tokens, heads "
                           << shape.n_heads << " / " << shape.n_kv_heads << " of " << shape.head_dim);
    AttentionTensors p({shape}, dtype);
    const cudnn::ForwardPlan forward(fake(), nullptr, shape, dtype);
    const cudnn::BackwardPlan backward(fake(), nullptr, shape, dtype);
    CHECK(forward.workspace_bytes() == 1000);
    std::vector<unsigned char> workspace(static_cast<std::size_t>(backward.workspace_bytes()));
    reference::attention_forward<double>(p.forward(reference_form));
    forward.run(p.forward(kernel_form), workspace.data());
    CHECK(p.o.error() <= rounding * kForwardTolerance);
    CHECK(p.lse.error() <= kFloat32Tolerance);
    for (TestTensor* stored : {&p.o, &p.lse}) {
      stored->fill(stored->values());
    }
    reference::attention_backward<double>(p.backward(reference_form));
    backward.run(p.backward(kernel_form), workspace.data());
    CHECK(p.dq.error() <= rounding * kBackwardTolerance);
    CHECK(p.dk.error() <= rounding * kBackwardTolerance);
    CHECK(p.dv.error() <= rounding * kBackwardTolerance);
  }
}

TEST_CASE("cuDNN's attention takes causal rows in 16 bits, with heads of up to 128", "[cudnn]") {
  const AttentionShape shape = attention_shape(1, 8, 8, 2, 1, 64);
  CHECK(cudnn::takes(shape, MaskKind::kCausal, DType::kBFloat16));
  CHECK(cudnn::takes(shape, MaskKind::kCausal, DType::kFloat16));
  CHECK_FALSE(cudnn::takes(shape, MaskKind::kGeneral, DType::kBFloat16));
  CHECK_FALSE(cudnn::takes(shape, MaskKind::kCausal, DType::kFloat32));
  CHECK_FALSE(cudnn::takes(attention_shape(1, 8, 16, 2, 1, 64), MaskKind::kCausal, DType::kBFloat16));
  CHECK_FALSE(cudnn::takes(attention_shape(0, 8, 8, 2, 1, 64), MaskKind::kCausal, DType::kBFloat16));
  CHECK_FALSE(cudnn::takes(attention_shape(1, 0, 0, 2, 1, 64), MaskKind::kCausal, DType::kBFloat16));
  for (const auto& [head_dim, is_taken] :
       {std::pair{8, true}, {36, false}, {80, true}, {128, true}, {136, false}}) {
    INFO(head_dim);
    CHECK(cudnn::takes_head_dim(head_dim) == is_taken);
  }
}

TEST_CASE("an error of cuDNN's names the call, its place, what it was about and what to do", "[cudnn]") {
  const AttentionShape shape = attention_shape(1, 5, 5, 1, 1, 8);
  AttentionTensors p({shape}, DType::kBFloat16);
  const cudnn::ForwardPlan forward(fake(), nullptr, shape, DType::kBFloat16);
  std::vector<unsigned char> workspace(1000);
  setenv("FAKE_CUDNN_FAIL", "BackendExecute", 1);
  CHECK_THROWS_WITH(
      forward.run(p.forward(kernel_form), workspace.data()),
      Catch::StartsWith("cudnnBackendExecute (graph.cpp:") &&
          Contains("), attention: CUDNN_STATUS_BAD_PARAM (2000) said by the fake; set attention: own"));
  setenv("FAKE_CUDNN_FAIL", "plan", 1);
  CHECK_THROWS_WITH(cudnn::ForwardPlan(fake(), nullptr, shape, DType::kBFloat16),
                    "cuDNN 9.19.0 has no kernel for this attention on this GPU; set attention: own, or try "
                    "another cuDNN 9");
  unsetenv("FAKE_CUDNN_FAIL");
}
