// A Llama of one layer over ports and cuts of the test's choice, in float64 on the reference backend: what
// every parallel layout is compared with, and what is compared.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "caravan/comm/communicator.h"
#include "caravan/model/llama.h"
#include "caravan/model/local_ports.h"
#include "caravan/parallel/context_keys.h"
#include "kernels/reference/reference_backend.h"

namespace caravan::test {

/// 8 heads, 8 kv heads, 20 MLP rows and 19 tokens of vocabulary: the last two do not divide evenly.
ModelConfig port_model_config();

/// Token rows that own their memory: `rows` of `seq_len` tokens, some of two documents, some targets that do
/// not count.
class TokenRows {
 public:
  TokenRows(std::int64_t rows, std::int64_t seq_len);
  /// Of every row the tokens at `places`, in that order: what one rank of a context split has.
  TokenRows take(const std::vector<std::int64_t>& places) const;
  /// What attention over ranks asks of these, its part of the rows. Collective; a copy has the same keys.
  void order_keys(Communicator& cp, ContextExchange exchange);
  TokenBatch view();
  std::int64_t valid_tokens() const;

  std::int64_t rows = 0;
  std::int64_t seq_len = 0;
  std::vector<std::int32_t> ids, targets, index, document_start, positions;
  std::vector<float> weights;

 private:
  std::shared_ptr<std::vector<std::int32_t>> key_numbers_;
  std::shared_ptr<const ContextKeys> keys_;  // views of them
};

/// Cuts heads, MLP rows and vocabulary over axis "tp" of `at`.
class PortModel {
 public:
  PortModel(const Coordinates& at, const Ports& ports, SavePolicy policy);

  /// Σ token losses; fills hidden, dhidden and the gradients.
  double forward_backward(TokenRows& tokens, std::int64_t valid_tokens);

  std::vector<double> hidden;      // [T_stream, D] the stream before the head
  std::vector<double> dembedding;  // [T_stream, D] dL/d(first stream)
  ParameterSet& parameters() { return parameters_; }

 private:
  void forward_blocks(Context& ctx, const TokenBatch& batch, ResidualStream& stream);

  ReferenceBackend backend_;
  ParameterSet parameters_;
  RopeTable rope_;
  const Boundary& boundary_;
  SavePolicy policy_;
  ReplicatedStore store_;
  Arena saved_arena_;
  Arena scratch_;
  Stream stream_;
  StepScalars scalars_;
  std::vector<std::unique_ptr<Segment>> segments_;
  std::vector<std::unique_ptr<Saved>> saved_;
  std::unique_ptr<LmHead> head_;
};

/// Largest difference in units of the largest expected value; infinite when something is not finite.
double relative_error(const std::vector<double>& actual, const std::vector<double>& expected);
/// Elements of a float64 view.
std::vector<double> doubles(const TensorView& view);
/// The part of a whole parameter's gradient that `part` holds.
std::vector<double> same_part(const Parameter& whole, const Parameter& part);

}  // namespace caravan::test
