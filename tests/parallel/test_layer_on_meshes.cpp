// RANKS 1 2 4 8
// A one-layer model with its heads, MLP rows and vocabulary cut over tp and its tokens over cp, on every mesh
// of the two, against the same model on one rank, in float64: loss, streams and every gradient.
#include <catch2/catch.hpp>
#include <memory>
#include <string>

#include "caravan/comm/mesh.h"
#include "caravan/comm/mpi_communicator.h"
#include "caravan/parallel/gather_attention.h"
#include "caravan/parallel/ring_attention.h"
#include "caravan/parallel/sequence_boundary.h"
#include "caravan/parallel/tensor_boundary.h"
#include "caravan/parallel/vocab_reduce.h"
#include "tests/support/port_model.h"

using namespace caravan;
using namespace caravan::test;

namespace {

// Largest difference over largest value; other orders of summation are all that is left.
constexpr double kTolerance = 1e-12;
constexpr std::int64_t kRows = 2;
constexpr std::int64_t kLength = 16;

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

/// Chunks rank and 2c − 1 − rank of 2c.
std::vector<std::int64_t> zigzag_places(const Communicator& cp) {
  const std::int64_t chunk = kLength / (2 * cp.size());
  std::vector<std::int64_t> places;
  for (const std::int64_t begin : {cp.rank() * chunk, kLength - (cp.rank() + 1) * chunk}) {
    for (std::int64_t i = 0; i < chunk; ++i) {
      places.push_back(begin + i);
    }
  }
  return places;
}

/// Of a [kRows · kLength, width] stream the tokens of this rank: those of its cp rank, of these its tp rank's
/// when the boundary cuts by tokens.
std::vector<double> own_tokens(const Mesh& mesh, const Boundary& boundary, const std::vector<double>& all) {
  const std::int64_t width = port_model_config().hidden_size;
  const std::vector<std::int64_t> places = zigzag_places(mesh.axis(MeshAxis::kCp));
  std::vector<double> tokens;
  for (std::int64_t row = 0; row < kRows; ++row) {
    for (const std::int64_t place : places) {
      const auto begin = all.begin() + (row * kLength + place) * width;
      tokens.insert(tokens.end(), begin, begin + width);
    }
  }
  const std::int64_t local = kRows * std::ssize(places);
  const std::int64_t count = boundary.stream_tokens(local);
  const std::int64_t begin = count < local ? mesh.coordinate(MeshAxis::kTp) * count : 0;
  return {tokens.begin() + begin * width, tokens.begin() + (begin + count) * width};
}

/// An attention core, and the order of keys that it asks for.
struct DividedAttention {
  const AttentionCore& core;
  ContextExchange exchange;
};

void check_model(const Mesh& mesh, OneRank& expected, const Boundary& boundary,
                 const DividedAttention& attention, SavePolicy policy) {
  Communicator& tp = mesh.axis(MeshAxis::kTp);
  Communicator& cp = mesh.axis(MeshAxis::kCp);
  TokenRows all(kRows, kLength);
  TokenRows tokens = all.take(zigzag_places(cp));
  tokens.order_keys(cp, attention.exchange);
  const Coordinates at = mesh.coordinates();
  const Parameter& output = expected.model.parameters().at("output.weight");
  const ShardedVocab vocab(tp, output.spec().shard.resolve(output.spec().shape, at)[0].begin);
  PortModel model(at, {.boundary = boundary, .attention = attention.core, .vocab = vocab}, policy);
  const double loss = cp.all_reduce_value(model.forward_backward(tokens, all.valid_tokens()));

  CHECK(std::abs(loss - expected.loss) <= kTolerance * expected.loss);
  CHECK(relative_error(model.hidden, own_tokens(mesh, boundary, expected.model.hidden)) <= kTolerance);
  CHECK(relative_error(model.dembedding, own_tokens(mesh, boundary, expected.model.dembedding)) <=
        kTolerance);
  const std::int64_t local = tokens.rows * tokens.seq_len;
  const bool is_cut_by_tokens = boundary.stream_tokens(local) < local;
  for (Parameter& parameter : model.parameters().all()) {
    INFO(parameter.name());
    cp.all_reduce(parameter.stored_grad());
    if (is_cut_by_tokens && parameter.spec().shard.cuts.empty()) {
      tp.all_reduce(parameter.stored_grad());  // a norm has seen this rank's tokens only
    }
    const Parameter& whole = expected.model.parameters().at(parameter.name());
    CHECK(relative_error(doubles(parameter.stored_grad()), same_part(whole, parameter)) <= kTolerance);
  }
}

}  // namespace

TEST_CASE("a layer on every mesh of tp and cp is the layer on one rank", "[parallel][model]") {
  const auto world = MpiCommunicator::over_world();
  TokenRows tokens(kRows, kLength);
  OneRank expected(tokens);
  for (int cp = 1; cp <= world->size(); cp *= 2) {
    const Mesh mesh(*world, {.cp = cp, .tp = world->size() / cp});
    const TensorBoundary tensor(mesh.axis(MeshAxis::kTp));
    const SequenceBoundary sequence(mesh.axis(MeshAxis::kTp));
    const GatherAttention gathering(mesh.axis(MeshAxis::kCp));
    const RingAttention passing(mesh.axis(MeshAxis::kCp));
    const DividedAttention gather{gathering, ContextExchange::kGather};
    const DividedAttention ring{passing, ContextExchange::kRing};
    INFO("cp " << cp << ", tp " << world->size() / cp);
    check_model(mesh, expected, tensor, gather, SavePolicy::none());
    check_model(mesh, expected, tensor, ring, SavePolicy::full());
    check_model(mesh, expected, sequence, gather, SavePolicy::full());
    check_model(mesh, expected, sequence, ring, SavePolicy::none());
    check_model(mesh, expected, sequence, ring, SavePolicy::selective());
  }
}
