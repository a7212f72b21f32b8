// What the segments of a model put out in one forward pass, kept to be compared with another layout's.
#pragma once

#include <string>
#include <vector>

#include "caravan/core/trace.h"
#include "caravan/data/batch.h"
#include "caravan/train/matrix_parts.h"
#include "caravan/train/synchronous_run.h"

namespace caravan {

/// One segment's output, or the logits, of the tokens seen by one rank.
struct SegmentOutput {
  std::string name;  // "tok_embeddings", "layers.0.attention", ..., "logits"
  std::int64_t columns = 0;
  DType dtype = DType::kFloat32;
  std::vector<std::byte> bytes;  // [rows, columns]

  TensorView view();
};

/// The names of everything a model puts out, in order.
std::vector<std::string> output_names(const ModelConfig& model);

/// Keeps what the segments of this rank put out, in the order in which they are first computed. What comes in
/// pieces (chunks of logits, micro-batches) is put together row by row.
class OutputTrace final : public Trace {
 public:
  /// `output_name`: the output layer's weight, of a tied model the embedding's.
  explicit OutputTrace(std::string output_name) : output_name_(std::move(output_name)) {}
  void observe(std::string_view name, const TensorView& value) override;

  std::vector<SegmentOutput>& outputs() { return outputs_; }

 private:
  void keep(std::string name, const TensorView& value);

  std::string output_name_;
  std::vector<SegmentOutput> outputs_;
};

/// Which tokens a rank's rows are: numbers b · S + s of the whole batch's tokens, MatrixPart::kNoRow where
/// this rank pads. Found by dividing a batch of token numbers as a step divides its ids.
struct TokenRowNumbers {
  std::vector<std::int64_t> full;    // rows of the logits
  std::vector<std::int64_t> stream;  // rows of the residual stream: fewer under sequence parallelism
};
TokenRowNumbers token_rows(const Batch& batch, const SynchronousLayout& layout);

/// The most rows of a batch of which every rank runs one micro-batch; in a pipeline those of a step, which
/// are under way together.
std::int64_t rows_of_one_pass(const SynchronousLayout& layout);

/// Forward pass of `batch` in the micro-batches of this rank; of more than one rank at most
/// rows_of_one_pass() rows. In a pipeline a rank has the outputs of its own stages. Collective over the run's
/// ranks.
std::vector<SegmentOutput> trace_outputs(SynchronousRun& run, const Batch& batch, std::int32_t pad_id);

/// Bytes that trace_outputs keeps on one rank for `rows` of the longest rows, and of those the logits'.
struct TraceBytes {
  std::int64_t all = 0;
  std::int64_t logits = 0;
};
TraceBytes trace_bytes(const SynchronousLayout& layout, const ModelConfig& model, std::int64_t rows);

}  // namespace caravan
