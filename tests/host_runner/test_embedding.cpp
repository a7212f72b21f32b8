// Embedding kernels against the reference in double; the backward pass has one order of summation.
#include <catch2/catch.hpp>

#include "host_runner/schedules.h"
#include "host_runner/tensors.h"
#include "kernels/reference/embedding.h"

using namespace caravan;
using namespace caravan::test;

namespace {

struct Case {
  std::int64_t tokens;
  std::int64_t rows;  // of this part of the table
  std::int64_t vocab_begin;
  std::int64_t vocab_size;
  std::int64_t width;
  std::int64_t offset;
};

std::vector<Case> cases() {
  if (host_runner::kThreadSanitizer) {
    return {{12, 5, 0, 5, 8, 0}};
  }
  return {{1, 1, 0, 1, 8, 0},   {50, 7, 0, 7, 24, 0},       {50, 7, 5, 17, 24, 0}, {50, 300, 0, 300, 33, 0},
          {50, 7, 0, 7, 24, 1}, {700, 5000, 0, 5000, 8, 0}, {0, 4, 0, 4, 8, 0},    {30, 16, 0, 16, 300, 0}};
}

void both(const Case& c, DType dtype, DType weight_gradient) {
  INFO(c.tokens << " tokens, rows " << c.vocab_begin << " + " << c.rows << " of " << c.vocab_size
                << ", width " << c.width << ", offset " << c.offset << ", " << dtype_name(dtype));
  const CounterRng rng(1, 2);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(c.tokens));
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    tokens[t] = static_cast<std::int32_t>(rng.below(t, static_cast<std::uint64_t>(c.vocab_size)));
  }
  TestTensor ids(DType::kInt32, {c.tokens});
  TestTensor weight(dtype, {c.rows, c.width}, c.offset);
  TestTensor y(dtype, {c.tokens, c.width}, c.offset);
  TestTensor dy(dtype, {c.tokens, c.width}, c.offset);
  TestTensor dweight(weight_gradient, {c.rows, c.width}, c.offset);
  ids.ints(tokens);
  weight.random(1);
  dy.random(2);
  dweight.random(3);
  const auto forward = [&](auto form) {
    return EmbeddingForwardArgs{.weight = form(weight),
                                .ids = form(ids),
                                .y = form(y),
                                .vocab_begin = c.vocab_begin,
                                .vocab_size = c.vocab_size};
  };
  reference::embedding_forward<double>(forward(reference_form));
  cuda::embedding_forward(forward(kernel_form), nullptr);
  CHECK(y.error() == 0.0);
  const auto backward = [&](auto form) {
    return EmbeddingBackwardArgs{.dy = form(dy),
                                 .ids = form(ids),
                                 .dweight = form(dweight),
                                 .vocab_begin = c.vocab_begin,
                                 .vocab_size = c.vocab_size};
  };
  reference::embedding_backward<double>(backward(reference_form));
  TestWorkspace workspace(cuda::embedding_backward_workspace_bytes(backward(kernel_form)));
  cuda::embedding_backward(backward(kernel_form), workspace.get(), nullptr);
  CHECK(dweight.error() <= tolerance(weight_gradient));
}

}  // namespace

TEST_CASE("embedding looks up its rows, zeros elsewhere, and adds every row's gradients", "[embedding]") {
  for_each_schedule([] {
    for (const Case& c : cases()) {
      for (const auto& [dtype, gradient] : kGradientTypes) {
        both(c, dtype, gradient);
      }
    }
  });
}

TEST_CASE("embedding_backward gives the same bits under every schedule", "[embedding]") {
  std::vector<unsigned char> first;
  for_each_schedule([&] {
    constexpr std::int64_t kTokens = 12;
    TestTensor ids(DType::kInt32, {kTokens});
    std::vector<std::int32_t> tokens(kTokens);
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      tokens[t] = static_cast<std::int32_t>(t % 3);
    }
    ids.ints(tokens);
    TestTensor dy(DType::kFloat32, {kTokens, 9});
    TestTensor dweight(DType::kFloat32, {3, 9});
    dy.random(1);
    const EmbeddingBackwardArgs args{.dy = dy.view(), .ids = ids.view(), .dweight = dweight.view()};
    TestWorkspace workspace(cuda::embedding_backward_workspace_bytes(args));
    cuda::embedding_backward(args, workspace.get(), nullptr);
    if (first.empty()) {
      first = dweight.bits();
    }
    CHECK(dweight.bits() == first);
  });
}
