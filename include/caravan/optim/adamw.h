// AdamW over this rank's share of every trainable parameter (Loshchilov and Hutter 2019), PyTorch's order of
// operations.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "caravan/model/parameter.h"

namespace caravan {

struct AdamwOptions {
  double weight_decay = 0.01;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  std::vector<std::string> no_decay = {};  // parameter name patterns; * any run of characters, ? one
};

/// True when `name` matches `pattern` as a whole.
bool matches_pattern(const std::string& pattern, const std::string& name);

class Adamw {
 public:
  /// Allocates both moments of every trainable shard, zeroed, and for values of a 16-bit dtype float32
  /// masters, of which the values are the roundings (Micikevicius et al. 2018, section 3.1). What `shards`
  /// view must outlive the optimizer.
  Adamw(const std::vector<ParameterShard>& shards, AdamwOptions options, DType dtype, Backend& backend);

  /// Memory of the state of so many elements stored as `dtype`: both moments, and masters of 16-bit values.
  static std::int64_t state_bytes(std::int64_t elements, DType dtype);

  /// One update from the shards' gradients; sets lr, step, bias corrections and clip_factor in
  /// ctx.scalars.
  void step(const Context& ctx, double lr, double clip_factor);
  /// Forgets all state: moments zero, step count zero.
  void reset(const Context& ctx);

  /// Values were written by somebody else: the next step's masters begin as they are.
  void forget_masters() { masters_are_current_ = false; }
  /// Masters were written by somebody else, and the values are their roundings.
  void keep_masters() { masters_are_current_ = true; }

  std::int64_t steps() const { return steps_; }
  void set_steps(std::int64_t steps) { steps_ = steps; }
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
  };
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  void refresh_masters(const Context& ctx);

  AdamwOptions options_;
  Buffer memory_;
  TensorView state_;
  std::vector<Entry> entries_;
  std::int64_t steps_ = 0;
  bool masters_are_current_ = false;
};

}  // namespace caravan
