// RANKS 1 2 4 8
// A one-layer model cut over tensor-parallel ranks against the same model on one rank, in float64: loss,
// streams and every gradient, with and without sequence parallelism.
#include <catch2/catch.hpp>

#include "caravan/comm/mpi_communicator.h"
#include "caravan/parallel/sequence_boundary.h"
#include "caravan/parallel/tensor_boundary.h"
#include "caravan/parallel/vocab_reduce.h"
#include "tests/support/port_model.h"

using namespace caravan;
using namespace caravan::test;

namespace {

// Largest difference over largest value; other orders of summation are all that is left.
constexpr double kTolerance = 1e-12;

struct OneRank {
  explicit OneRank(TokenRows& tokens)
      : model({}, {.boundary = boundary, .attention = attention, .vocab = vocab}, SavePolicy::none()),
        loss(model.forward_backward(tokens, tokens.valid_tokens())) {}
  LocalBoundary boundary;
  LocalAttention attention;
  LocalVocab vocab;
  PortModel model;
  double loss;
};

/// The rows of a [T, width] stream that `boundary` leaves on this rank.
std::vector<double> own_tokens(const Communicator& tp, const Boundary& boundary, std::int64_t tokens,
                               const std::vector<double>& all) {
  const auto width = static_cast<std::ptrdiff_t>(port_model_config().hidden_size);
  const std::int64_t count = boundary.stream_tokens(tokens);
  const std::int64_t begin = count < tokens ? tp.rank() * count : 0;
  return {all.begin() + begin * width, all.begin() + (begin + count) * width};
}

void check_model(Communicator& tp, const Boundary& boundary, SavePolicy policy) {
  TokenRows tokens(2, 12);
  OneRank expected(tokens);
  const Coordinates at({{"tp", tp.rank(), tp.size()}});
  const std::int64_t vocab_begin =
      expected.model.parameters()
          .at("output.weight")
          .spec()
          .shard.resolve(expected.model.parameters().at("output.weight").spec().shape, at)[0]
          .begin;
  const ShardedVocab vocab(tp, vocab_begin);
  const LocalAttention attention;
  PortModel model(at, {.boundary = boundary, .attention = attention, .vocab = vocab}, policy);
  const double loss = model.forward_backward(tokens, tokens.valid_tokens());
  const std::int64_t all_tokens = tokens.rows * tokens.seq_len;
  const bool is_cut_by_tokens = boundary.stream_tokens(all_tokens) < all_tokens;

  CHECK(std::abs(loss - expected.loss) <= kTolerance * expected.loss);
  CHECK(relative_error(model.hidden, own_tokens(tp, boundary, all_tokens, expected.model.hidden)) <=
        kTolerance);
  CHECK(relative_error(model.dembedding, own_tokens(tp, boundary, all_tokens, expected.model.dembedding)) <=
        kTolerance);
  for (Parameter& parameter : model.parameters().all()) {
    INFO(parameter.name());
    if (is_cut_by_tokens && parameter.spec().shard.cuts.empty()) {
      tp.all_reduce(parameter.stored_grad());  // a norm has seen this rank's tokens only
    }
    const Parameter& whole = expected.model.parameters().at(parameter.name());
    CHECK(relative_error(doubles(parameter.stored_grad()), same_part(whole, parameter)) <= kTolerance);
  }
}

}  // namespace

TEST_CASE("a model cut by heads, MLP rows and vocabulary is the whole model", "[parallel][model]") {
  const auto tp = MpiCommunicator::over_world();
  check_model(*tp, TensorBoundary(*tp), SavePolicy::none());
  check_model(*tp, TensorBoundary(*tp), SavePolicy::full());
}

TEST_CASE("a model whose stream is cut by tokens too is the whole model", "[parallel][model]") {
  const auto tp = MpiCommunicator::over_world();
  check_model(*tp, SequenceBoundary(*tp), SavePolicy::none());
  check_model(*tp, SequenceBoundary(*tp), SavePolicy::selective());
  check_model(*tp, SequenceBoundary(*tp), SavePolicy::full());
}
