// Parameters: what each tensor of a Llama model is called, how it is cut, and where this rank's part lives.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "caravan/backend/context.h"
#include "caravan/config/model_config.h"
#include "caravan/core/error.h"
#include "caravan/core/shard_spec.h"

namespace caravan {

/// Which cuts apply. kWhole: none (one rank, or the aggregator's full model). kFederated: slices over axis
/// "slot", where heads and MLP rows are cut and everything else is a full copy. kSynchronous: over axis "tp"
/// heads, MLP rows and the vocabulary are cut; key and value heads over axis "kv", which has fewer members
/// than "tp" when several ranks share a head. There a gradient is a partial sum over "sp" (norms: the axis
/// has the members of "tp" when the stream is cut by tokens, else one), over "kv_copies" (shared heads) and,
/// of a tied table, over "table_copies" (the first and the last stage of a pipeline).
enum class ShardTable : std::uint8_t { kWhole, kFederated, kSynchronous };

/// One tensor of the model, independent of ranks. Names and shapes are Meta's (docs/tour.md lists them).
struct ParameterSpec {
  std::string name;
  Shape shape;  // global
  ShardSpec shard;
  int group = 0;                    // tensors of one group are leased together
  double initial_deviation = 0.02;  // of N(0, σ²); 0: filled with ones (norm weights)
};

/// All parameters in forward order; a tied model has no "output.weight". Groups: 0 the embedding, 1 + 2i and
/// 2 + 2i attention and MLP of layer i, 1 + 2L the head.
std::vector<ParameterSpec> parameter_table(const ModelConfig& config, ShardTable table);
/// Those of some stages of a pipeline, each given by its layers. The embedding belongs to the stage that has
/// the first layer, the head to that with the last one, a tied table to both.
std::vector<ParameterSpec> parameter_table(const ModelConfig& config, ShardTable table,
                                           const std::vector<Range>& stages);

/// This rank's part of one parameter. `value` and `grad` may be used while the parameter's group is leased.
class Parameter {
 public:
  Parameter(ParameterSpec spec, const Coordinates& at)
      : spec_(std::move(spec)),
        region_(spec_.shard.resolve(spec_.shape, at)),
        shape_(region_shape(region_)) {}

  const ParameterSpec& spec() const { return spec_; }
  const std::string& name() const { return spec_.name; }
  const Region& region() const { return region_; }  // global index ranges held here
  const Shape& shape() const { return shape_; }     // sizes of the region
  bool is_trainable() const { return trainable_; }

  /// Checked in debug builds: the group must be leased.
  TensorView value() const {
    CARAVAN_DCHECK(leases_ > 0, "{} is used without a lease", spec_.name);
    return value_;
  }
  WeightView weight() const { return DenseWeight{value()}; }
  TensorView grad() const {
    CARAVAN_DCHECK(leases_ > 0, "gradient of {} is used without a lease", spec_.name);
    return grad_;
  }

  /// For stores, optimizers and file transfer, which handle parameters outside leases.
  TensorView stored_value() const { return value_; }
  TensorView stored_grad() const { return grad_; }

 private:
  friend class ParameterSet;
  friend class ReplicatedStore;
  friend class LeasedMemory;
  ParameterSpec spec_;
  Region region_;
  Shape shape_;
  TensorView value_;
  TensorView grad_;
  bool trainable_ = true;
  int leases_ = 0;
};

/// Where values live: in the set's own memory, or wherever a store puts them for the time of a lease.
enum class Values : std::uint8_t { kAllocated, kLeased };
enum class Gradients : std::uint8_t { kNone, kAllocated, kLeased };

/// The parameters of one model on one rank and the memory behind them: one buffer of values, one of
/// gradients, unless they are leased.
class ParameterSet {
 public:
  ParameterSet(std::vector<ParameterSpec> specs, const Coordinates& at, DType dtype, Backend& backend,
               Gradients gradients, Values values = Values::kAllocated);

  std::deque<Parameter>& all() { return parameters_; }
  const std::deque<Parameter>& all() const { return parameters_; }
  /// Null when the model has no such tensor.
  Parameter* find(const std::string& name);
  /// Throws InternalError when absent.
  Parameter& at(const std::string& name);
  /// Other coordinates with the same local sizes: the memory now stands for another part of the global
  /// tensors.
  void relocate(const Coordinates& at);
  std::int64_t value_bytes() const { return values_.bytes(); }
  std::int64_t grad_bytes() const { return grads_.bytes(); }
  std::int64_t numel() const;

 private:
  std::deque<Parameter> parameters_;  // deque: addresses stay when it grows
  Buffer values_;
  Buffer grads_;
};

/// What one rank updates of one parameter: all of its part, or a share of it when the part is divided again
/// among ranks that hold copies. `value` and `grad` are contiguous.
struct ParameterShard {
  const Parameter* parameter = nullptr;
  Region region;  // global index ranges
  TensorView value;
  TensorView grad;            // undefined when the parameter set has no gradients
  bool is_first_copy = true;  // false: another rank holds the same elements and counts them
};

/// The whole local part of every parameter.
std::vector<ParameterShard> whole_shards(const ParameterSet& parameters);

/// Fills every shard from (seed, name, global index): the same global tensors for any cut.
void initialise(const Context& ctx, const std::vector<ParameterShard>& shards, std::uint64_t seed);

}  // namespace caravan
