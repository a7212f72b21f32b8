// cuDNN's attention graphs, executed by the fake cuDNN one operation after the other, against the reference;
// and their tensors and operations put before the real cuDNN where there is one.
#include "kernels/cudnn/attention.h"

#include <catch2/catch.hpp>
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
  for (const AttentionShape& shape : {attention_shape(1, 5, 5, 1, 1, 8), attention_shape(2, 13, 13, 4, 2, 16),
                                      attention_shape(2, 9, 9, 3, 3, 64)}) {
    INFO("batch " << shape.batch << ", " << shape.query_len << " tokens, heads " << shape.n_heads << " / "
                  << shape.n_kv_heads << " of " << shape.head_dim);
    AttentionTensors p({shape}, DType::kBFloat16);
    const cudnn::AttentionPlan plan(fake(), nullptr, shape);
    CHECK(plan.forward_workspace_bytes() == 1000);
    std::vector<unsigned char> workspace(static_cast<std::size_t>(plan.backward_workspace_bytes()));
    reference::attention_forward<double>(p.forward(reference_form));
    plan.forward(p.forward(kernel_form), workspace.data());
    CHECK(p.o.error() <= kForwardTolerance);
    CHECK(p.lse.error() <= kFloat32Tolerance);
    for (TestTensor* stored : {&p.o, &p.lse}) {
      stored->fill(stored->values());
    }
    reference::attention_backward<double>(p.backward(reference_form));
    plan.backward(p.backward(kernel_form), workspace.data());
    CHECK(p.dq.error() <= kBackwardTolerance);
    CHECK(p.dk.error() <= kBackwardTolerance);
    CHECK(p.dv.error() <= kBackwardTolerance);
  }
}

TEST_CASE("what cuDNN's attention cannot do is refused by its name", "[cudnn]") {
  const AttentionShape shape = attention_shape(1, 8, 8, 2, 1, 64);
  using cudnn::MaskKind;
  CHECK_NOTHROW(cudnn::check_supported(shape, MaskKind::kCausal, DType::kBFloat16));
  CHECK_THROWS_WITH(
      cudnn::check_supported(shape, MaskKind::kGeneral, DType::kBFloat16),
      Contains("plain causal rows only, and this batch has packed documents or divided positions"));
  CHECK_THROWS_WITH(
      cudnn::check_supported(attention_shape(1, 8, 16, 2, 1, 64), MaskKind::kCausal, DType::kBFloat16),
      Contains("as many keys as queries, and there are 16 and 8"));
  CHECK_THROWS_WITH(cudnn::check_supported(shape, MaskKind::kCausal, DType::kFloat32),
                    Contains("computes in bfloat16, and this model in float32"));
  CHECK_THROWS_WITH(
      cudnn::check_supported(attention_shape(1, 8, 8, 2, 1, 36), MaskKind::kCausal, DType::kBFloat16),
      Contains("multiples of 8, and this model has 36"));
}
