// The communicators of one rank on a mesh: one per axis, and the products of axes that sums are made over.
#pragma once

#include <memory>
#include <vector>

#include "caravan/backend/background.h"
#include "caravan/comm/mesh.h"
#include "caravan/parallel/training_store.h"

namespace caravan {

class MeshGroups final : public Background {
 public:
  /// `at` is mesh_coordinates() of this rank. Collective.
  MeshGroups(Communicator& world, const MeshSizes& sizes, const Coordinates& at);

  Communicator& axis(MeshAxis axis) const { return mesh_.axis(axis); }
  /// dp_replicate, dp_shard and cp: the ranks whose gradients add up.
  Communicator& data() const { return *data_; }
  /// dp_shard and cp: the ranks that divide a copy's weights.
  Communicator& fsdp() const { return *fsdp_; }
  /// Who sums the gradients that are partial within tp, and that of a tied table within pp.
  std::vector<PartialGroup> partial_groups() const;
  /// That the groups of every axis have the ranks they must have, in order, and that numbers reach all of
  /// them: before a wrong launcher or library makes a model of it. CommError names the group. Collective over
  /// `world`.
  void check(Communicator& world) const;
  /// Lets what was started on any group move.
  void advance() override;
  /// All of them; several may have the same ranks.
  const std::vector<Communicator*>& all() const { return all_; }
  /// What all groups of this rank have moved.
  Traffic traffic() const;

 private:
  Mesh mesh_;
  bool cuts_sequence_;
  std::unique_ptr<Communicator> data_;
  std::unique_ptr<Communicator> fsdp_;
  std::unique_ptr<Communicator> kv_copies_;
  std::unique_ptr<Communicator> table_copies_;
  std::vector<Communicator*> all_;
};

}  // namespace caravan
