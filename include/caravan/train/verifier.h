// The proof that a mesh computes the model of one rank: weights, outputs, gradients and losses of both, side
// by side. The one-rank model lives on rank 0; every rank's own numbers are brought there and compared
// (matrix_parts.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "caravan/train/output_trace.h"
#include "caravan/train/rounding.h"
#include "caravan/train/synchronous_run.h"

namespace caravan {

/// One tensor or number of the mesh against the one-rank model's.
struct Difference {
  std::string name;            // a parameter, a segment, "logits", "loss of step 3"
  int rank = 0;                // whose part lies furthest off
  std::int64_t unequal = 0;    // elements whose bits differ, over all ranks
  double mean_absolute = 0.0;  // |mesh − one rank|, mean over all elements of all ranks
  double relative = 0.0;       // root mean square of the difference in units of the values', on that rank
  double tolerance = 0.0;      // of `relative`; 0: the bits must be equal
  std::string detail;          // where the bits differ first, for tolerance 0

  /// False also where `relative` is no number.
  bool is_within() const { return tolerance == 0.0 ? unequal == 0 : relative <= tolerance; }
};

/// Of the k likeliest next tokens by the one-rank model, the share that is among the k likeliest by the mesh,
/// over all tokens that have a target.
struct TopAgreement {
  std::int64_t k = 0;
  double agreement = 0.0;
};

/// One optimizer step of both.
struct StepComparison {
  std::int64_t step = 0;  // from 1
  double loss = 0.0, one_rank_loss = 0.0;
  double grad_norm = 0.0, one_rank_grad_norm = 0.0;
};

struct Verification {
  // Each in the order of computation, so that the first that differs is the nearest to the fault.
  std::vector<Difference> weights;    // as the segments see them: leased, against the whole tensors
  std::vector<Difference> outputs;    // of one forward pass
  std::vector<Difference> gradients;  // from the head to the embedding
  std::vector<Difference> losses;     // loss and gradient norm of every step
  std::vector<TopAgreement> top_k;    // of the logits in `outputs`
  std::vector<StepComparison> steps;

  /// The first that is not within its tolerance; null: the mesh is the same model.
  const Difference* first_difference() const;
};

/// The configuration of the one-rank model: the same steps in micro-batches of the same size.
RunConfig one_rank_config(const RunConfig& config, const MeshSizes& sizes);

class TopTokens;

/// Every function is collective over `world`, the ranks of the mesh; results are whole on the root and empty
/// elsewhere.
class Verifier {
 public:
  static constexpr int kRoot = 0;
  static constexpr std::int64_t kTopK[] = {1, 2, 5, 10, 50};

  struct Parties {
    Communicator& world;
    SynchronousRun& mesh;
    SynchronousRun* one_rank = nullptr;  // on the root
    std::int32_t pad_id = 0;
  };
  /// Both models are loaded; everything outlives the verifier.
  explicit Verifier(const Parties& parties) : on_(parties) {}

  /// Weights, then outputs and gradients of `batch`, the first rows of it for outputs.
  void compare_models(const Batch& batch);
  /// One update of both from `batch`.
  void compare_step(const Batch& batch, double lr);
  const Verification& result() const { return result_; }

 private:
  bool is_root() const { return on_.world.rank() == kRoot; }
  void compare_weights();
  void compare_outputs(const Batch& batch);
  void compare_gradients(const Batch& batch);
  void compare_output(std::int64_t number, const std::string& name, const MatrixPart& mine,
                      SegmentOutput& whole, const Batch& batch);
  /// Both on the host or on a device.
  void compare(std::vector<Difference>& list, const std::string& name, const MatrixPart& part,
               const TensorView& whole_tensor, double tolerance, TopTokens* top = nullptr);
  ModelTolerances tolerances_for(const Batch& batch) const;

  Parties on_;
  Verification result_;
};

/// Bytes of host memory that compare_models needs beside the two models, which compute on devices of this
/// kind: on the rank with the most, and on top of that on the root.
struct VerifierBytes {
  std::int64_t rank = 0;
  std::int64_t root = 0;
};
VerifierBytes verifier_bytes(const RunConfig& config, const ModelConfig& model, const MeshSizes& sizes,
                             DeviceKind kind);

}  // namespace caravan
