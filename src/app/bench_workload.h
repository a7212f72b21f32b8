// What caravan bench times: one training step of a small model, under each way of dividing it among ranks,
// through the same ports and stores as training.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "caravan/backend/backend.h"
#include "caravan/comm/communicator.h"
#include "caravan/config/model_config.h"
#include "caravan/config/run_config.h"

namespace caravan::app {

enum class Division : std::uint8_t { kTp, kTpSp, kDdp, kFsdp, kCp, kPp };
inline constexpr std::array kDivisions = {Division::kTp,   Division::kTpSp, Division::kDdp,
                                          Division::kFsdp, Division::kCp,   Division::kPp};
/// "TP", "TP+SP", ...
std::string division_name(Division division);
/// The mesh of `ranks` ranks that divides in this way alone.
ParallelSection mesh_of(Division division, int ranks);

enum class WorkloadKind : std::uint8_t { kLinear, kBlock };

/// kLinear: y = (x W1ᵀ) W2ᵀ with two weights [hidden, hidden] and `batch` rows of x, loss ½ Σ y². kBlock:
/// `layers` Llama blocks (attention and MLP, hidden/64 heads, a fourth of them for keys and values, MLP of
/// 3.5 · hidden) between an embedding and a head of 256 tokens, on `batch` rows of `seq_len` tokens. float32,
/// AdamW.
struct WorkloadSize {
  WorkloadKind kind = WorkloadKind::kLinear;
  std::int64_t hidden = 0;
  std::int64_t batch = 0;  // over all ranks
  std::int64_t seq_len = 0;
  std::int64_t layers = 0;  // kBlock: PP needs one a rank
};

/// Why these ranks cannot divide it in this way; empty: they can.
std::string division_problem(const WorkloadSize& size, Division division, int ranks);
/// How long a rank waits for others in units of its own work, when all are equally fast: while the pipeline
/// of PP fills and drains (docs/notes/pipeline.md, "What they cost"); else 0.
double waiting_share(const WorkloadSize& size, Division division, int ranks);

/// One rank's part. Every function but the last two is collective over its ranks.
class Workload {
 public:
  virtual ~Workload() = default;
  /// Forward, backward and all reductions of gradients.
  virtual void gradients() = 0;
  /// The same and the update.
  virtual void step() = 0;
  /// Everything this rank's groups have moved since construction.
  virtual Traffic traffic() const = 0;
  /// Weights, gradients, optimizer, activations, staging.
  virtual std::int64_t memory_bytes() const = 0;
};

/// `ranks` and `backend` outlive it. Collective.
std::unique_ptr<Workload> make_workload(const WorkloadSize& size, Division division, Communicator& ranks,
                                        Backend& backend);
/// The two kinds; use make_workload.
std::unique_ptr<Workload> make_linear_workload(const WorkloadSize& size, Division division,
                                               Communicator& ranks, Backend& backend);
std::unique_ptr<Workload> make_block_workload(const WorkloadSize& size, Division division,
                                              Communicator& ranks, Backend& backend);
/// The block's model and configuration on `ranks` ranks.
ModelConfig block_model(const WorkloadSize& size);
RunConfig block_config(const WorkloadSize& size, Division division, int ranks);

}  // namespace caravan::app
