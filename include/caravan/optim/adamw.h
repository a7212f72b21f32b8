// AdamW over this rank's share of every trainable parameter (Loshchilov and Hutter 2019), PyTorch's order of
// operations, with clipping by the global gradient norm (Pascanu et al. 2013).
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "caravan/backend/update_state.h"
#include "caravan/model/parameter.h"

namespace caravan {

struct AdamwOptions {
  double weight_decay = 0.01;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  std::vector<std::string> no_decay = {};  // parameter name patterns; * any run of characters, ? one
  double clip_norm = std::numeric_limits<double>::infinity();  // of the gradients of all ranks
  LossScalePolicy loss_scale = {};
  double first_loss_scale = 1.0;
  bool has_masters = true;  // of 16-bit values; else bfloat16 ones are rounded by chance
  std::uint64_t seed = 0;   // of that chance
};

/// True when `name` matches `pattern` as a whole.
bool matches_pattern(const std::string& pattern, const std::string& name);

class Adamw {
 public:
  /// Allocates both moments of every trainable shard, zeroed, and for values of a 16-bit dtype float32
  /// masters, of which the values are the roundings (Micikevicius et al. 2018, section 3.1). What `shards`
  /// view must outlive the optimizer.
  Adamw(const std::vector<ParameterShard>& shards, AdamwOptions options, DType dtype, Backend& backend);

  /// Memory of the state of so many elements stored as `dtype`: both moments, and masters of 16-bit values
  /// where they are wanted.
  static std::int64_t state_bytes(std::int64_t elements, DType dtype, bool has_masters = true);

  // A step: begin, gradients, add_squares, sums() added up over the ranks, update; the host has its results
  // when finish() returns, the only one of them that waits. `ctx` is of the backend that has the shards.

  /// The step's sums are zero.
  void begin(const Context& ctx);
  /// [2] float64 in the backend's memory: Σ token losses, which whoever computes them adds, and Σ g².
  TensorView sums() const { return state_memory_.view(0, DType::kFloat64, {2}); }
  /// Adds Σ g² over the trainable shards that are first copies: summed over ranks, every element counts once.
  void add_squares(const Context& ctx);
  /// Masters are what they should begin with. Before `update`, which may be a recording and cannot do it.
  void refresh_masters(const Context& ctx);
  /// Decides on the update and makes it, with ctx.scalars.lr.
  void update(const Context& ctx);
  /// Waits for the step, and says what became of it.
  const UpdateState& finish();

  /// Forgets all state: moments zero, step count zero.
  void reset(const Context& ctx);

  /// Values were written by somebody else: the next step's masters begin as they are.
  void forget_masters() { masters_are_current_ = false; }
  /// Masters were written by somebody else, and the values are their roundings.
  void keep_masters() { masters_are_current_ = true; }

  /// Updates that were made: t of the bias corrections.
  std::int64_t steps() const { return state_now_.updates; }
  void set_steps(std::int64_t steps);
  /// As of the last step that was finished.
  const UpdateState& update_state() const { return state_now_; }
  void set_update_state(const UpdateState& state);
  /// Both moments in one buffer, for moving or saving the state: [2, n] elements of
  /// accumulation_dtype(dtype).
  TensorView state() const { return state_; }
  std::int64_t bytes() const { return memory_.bytes(); }

  /// One shard and its moments, in the order of the shards, frozen ones left out.
  struct Entry {
    ParameterShard shard;
    TensorView m;
    TensorView v;
    TensorView master;  // undefined: the value itself is exact
    double weight_decay = 0.0;
    StochasticRounding rounding;
  };
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  void send_state();

  AdamwOptions options_;
  Buffer memory_;
  TensorView state_;
  std::vector<Entry> entries_;
  Buffer state_memory_;  // an UpdateState
  UpdateState state_now_;
  bool masters_are_current_ = false;
};

}  // namespace caravan
