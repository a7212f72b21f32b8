// The attention graphs' tensors and operations before the real cuDNN, where there is one. A program of its
// own: the fake one, once loaded, answers to the same name.
#include <catch2/catch.hpp>
#include <string>

#include "caravan/core/error.h"
#include "host_runner/attention_problem.h"
#include "kernels/cudnn/attention.h"

using namespace caravan;
using namespace caravan::test;
using Catch::Matchers::Contains;

TEST_CASE("the real cuDNN takes the tensors and operations of both graphs", "[cudnn]") {
  const cudnn::Search search = cudnn::find();
  if (search.library == nullptr) {
    WARN("SKIPPED: " << search.why_none());
    return;
  }
  // The graph itself wants a handle, and a handle a GPU; without one the error comes after all operations.
  for (const AttentionShape& shape :
       {attention_shape(2, 1024, 1024, 32, 8, 64), attention_shape(1, 1024, 1024, 8, 8, 128)}) {
    try {
      const cudnn::ForwardPlan plan(search.library, nullptr, shape, DType::kBFloat16);
      FAIL("a plan without a handle");
    } catch (const DeviceError& error) {
      CHECK_THAT(error.what(), Contains("the graph: ") || Contains("attribute 800: "));
    }
    try {
      const cudnn::BackwardPlan plan(search.library, nullptr, shape, DType::kBFloat16);
      FAIL("a plan without a handle");
    } catch (const DeviceError& error) {
      CHECK_THAT(error.what(), Contains("the graph: ") || Contains("attribute 800: "));
    }
  }
}
