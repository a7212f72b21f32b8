// Which attention kernels run: the environment's word, and what it may say.
#include <catch2/catch.hpp>
#include <cstdlib>

#include "host_runner/attention_problem.h"
#include "host_runner/schedules.h"
#include "kernels/cuda/attention_choice.h"
#include "kernels/cuda/attention_tensor_core.h"
#include "kernels/reference/attention.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr std::int64_t kShared = 163 * 1024;  // of a block, compute capability 8.0

class Choice {
 public:
  explicit Choice(const char* value) { setenv("CARAVAN_HOPPER_ATTENTION", value, 1); }
  ~Choice() {
    unsetenv("CARAVAN_HOPPER_ATTENTION");
    cuda::choose_attention(80, kShared);
  }
  Choice(const Choice&) = delete;
  Choice& operator=(const Choice&) = delete;
  Choice(Choice&&) = delete;
  Choice& operator=(Choice&&) = delete;
};

}  // namespace

TEST_CASE("Hopper attention is the choice where it can run, and can be declined", "[attention]") {
  cuda::choose_attention(90, kShared);
  CHECK(cuda::uses_hopper_attention());
  cuda::choose_attention(80, kShared);
  CHECK_FALSE(cuda::uses_hopper_attention());
  {
    const Choice choice("0");
    cuda::choose_attention(90, kShared);
    CHECK_FALSE(cuda::uses_hopper_attention());
  }
  {
    const Choice choice("1");
    cuda::choose_attention(90, kShared);
    CHECK(cuda::uses_hopper_attention());
    CHECK_THROWS_WITH(
        cuda::choose_attention(80, kShared),
        "CARAVAN_HOPPER_ATTENTION=1 wants a GPU of compute capability 9.0, and this one has 8.0; unset "
        "it, the portable attention kernels run here");
  }
  const Choice choice("yes");
  CHECK_THROWS_WITH(
      cuda::choose_attention(90, kShared),
      "CARAVAN_HOPPER_ATTENTION=yes: set it to 0 for the portable attention kernels, to 1 for the Hopper "
      "ones (not at all: those where they run)");
}

TEST_CASE("the launchers hand over to the Hopper kernels when they are chosen", "[attention]") {
  if (host_runner::kThreadSanitizer) {
    return;
  }
  const Choice choice("1");
  cuda::choose_attention(90, kShared);
  // Within what a portable block may have, dq's block is too large: the Hopper kernel it is.
  AttentionTensors p({attention_shape(1, 5, 5, 1, 1, 128)}, DType::kBFloat16);
  cuda::attention_forward(p.forward(kernel_form), nullptr);
  TestWorkspace workspace(cuda::attention_backward_workspace_bytes(p.shape));
  CHECK_THROWS_WITH(cuda::attention_backward(p.backward(kernel_form), workspace.get(), nullptr),
                    Catch::Contains("kernel hopper_attention_dq"));
  AttentionTensors other({attention_shape(1, 5, 5, 1, 1, 96)}, DType::kBFloat16);
  reference::attention_forward<double>(other.forward(reference_form));
  cuda::attention_forward(other.forward(kernel_form), nullptr);
  CHECK(other.o.error() <= kBFloat16Tolerance);
}

TEST_CASE("where a block has too little shared memory the backward pass runs without tensor cores",
          "[attention]") {
  AttentionTensors wide({attention_shape(1, 5, 5, 1, 1, 128)}, DType::kBFloat16);
  AttentionTensors narrow({attention_shape(1, 5, 5, 1, 1, 64)}, DType::kBFloat16);
  cuda::choose_attention(80, kShared);
  CHECK(cuda::runs_on_tensor_cores(wide.backward(kernel_form)));
  cuda::choose_attention(89, 99 * 1024);
  CHECK_FALSE(cuda::runs_on_tensor_cores(wide.backward(kernel_form)));
  CHECK(cuda::runs_on_tensor_cores(wide.forward(kernel_form)));
  CHECK(cuda::runs_on_tensor_cores(narrow.backward(kernel_form)));
  cuda::choose_attention(80, kShared);
}
