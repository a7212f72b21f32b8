// The parameter groups of a model's segments and head on their way through a store: leased, fetched ahead,
// and committed when their gradients are complete.
#pragma once

#include <cstddef>
#include <vector>

#include "caravan/model/llama.h"

namespace caravan {

/// Users are numbered like model.segments(); the head, where there is one, comes after them.
class SegmentGroups {
 public:
  /// Both outlive it.
  SegmentGroups(const Llama& model, ParamStore& store);

  std::size_t head() const { return groups_.size() - 1; }
  Lease lease(std::size_t user, LeaseUse use) { return Lease(store_, groups_[user], use); }
  /// `user` will be leased next.
  void prefetch(std::size_t user, LeaseUse use);
  /// After the backward of `user`: tells the store of the groups that no earlier segment uses.
  void commit(std::size_t user, MicroBatch micro_batch);
  ParamStore& store() { return store_; }

 private:
  ParamStore& store_;
  std::vector<std::vector<int>> groups_;
  std::vector<std::size_t> first_user_;  // by group: its first user, whose backward is the group's last
};

}  // namespace caravan
