// Parameters as a trainer sees them: leased by segments, updated in shards, gradients summed over the ranks
// that hold copies. docs/design: the gradient table is data (ShardSpec::partial_axes), its sums are made
// here.
#pragma once

#include <string>
#include <vector>

#include "caravan/comm/communicator.h"
#include "caravan/model/local_ports.h"

namespace caravan {

/// The ranks over which gradients whose spec names `axis` are partial sums.
struct PartialGroup {
  std::string axis;
  Communicator* ranks = nullptr;
};

/// Every function is collective over the mesh.
class TrainingStore : public ParamStore {
 public:
  /// What this rank updates; the views stay valid for the store's life.
  const std::vector<ParameterShard>& shards() const { return shards_; }
  /// Before the first micro-batch of a step.
  virtual void zero_gradients(Context& ctx) = 0;
  /// After the shards' values have changed: every reader gets the new ones.
  virtual void publish_values(Context& ctx) = 0;

 protected:
  /// Sums the gradients that are partial over `groups`, in place.
  void reduce_partial_gradients(const std::vector<PartialGroup>& groups);

  std::vector<ParameterShard> shards_;
};

/// True on the rank that counts a tensor's elements where ranks of the tensor axis, or the two ends of a
/// pipeline, hold copies.
bool is_first_copy_in_model(const ShardSpec& spec, const Coordinates& at);

/// Weights, gradients and optimizer state whole on every data rank (DDP: Li et al. 2020, section 3.2). The
/// gradients of neighbouring groups form buckets, from the last group to the first; a bucket is summed in one
/// message as soon as all of its groups are committed, while earlier layers still compute. With one data rank
/// nothing is exchanged: the store of a single rank.
class DataParallelStore final : public TrainingStore {
 public:
  /// What a sum waits for: large messages waste no time on starting, small ones start earlier.
  static constexpr std::int64_t kBucketBytes = std::int64_t{25} << 20U;

  /// `data`: dp_replicate, dp_shard and cp together. A bucket holds whole groups, at least `bucket_bytes` of
  /// them but for the last one. All other arguments but `at` outlive the store.
  DataParallelStore(ParameterSet& parameters, Communicator& data, const Coordinates& at,
                    std::vector<PartialGroup> partial, std::int64_t bucket_bytes = kBucketBytes);

  void acquire(int group, LeaseUse use) override { leases_.acquire(group, use); }
  void release(int group) override { leases_.release(group); }
  void commit(int group, MicroBatch micro_batch) override;
  void zero_gradients(Context& ctx) override;
  void finish_gradients() override;
  void publish_values(Context& /*ctx*/) override {}

 private:
  struct Bucket {
    TensorView gradients;  // of all its groups, in one flat view
    int groups = 0;
    int uncommitted = 0;  // of the step; all of them between steps
    Pending sum;
  };
  void fill_buckets(std::int64_t bucket_bytes);

  ParameterSet& parameters_;
  Communicator& data_;
  std::vector<PartialGroup> partial_;
  ReplicatedStore leases_;
  std::vector<Bucket> buckets_;         // in the order of the backward pass
  std::vector<std::size_t> bucket_of_;  // by group
};

}  // namespace caravan
