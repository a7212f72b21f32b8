#include "caravan/parallel/mesh_groups.h"

#include <array>

namespace caravan {
namespace {

std::unique_ptr<Communicator> product(const Mesh& mesh, Communicator& world,
                                      std::initializer_list<MeshAxis> axes) {
  return mesh.group(world, {axes.begin(), axes.size()});
}

}  // namespace

MeshGroups::MeshGroups(Communicator& world, const MeshSizes& sizes, const Coordinates& at)
    : mesh_(world, sizes), cuts_sequence_(at.count("sp") > 1) {
  data_ = product(mesh_, world, {MeshAxis::kDpReplicate, MeshAxis::kDpShard, MeshAxis::kCp});
  fsdp_ = product(mesh_, world, {MeshAxis::kDpShard, MeshAxis::kCp});
  kv_copies_ =
      axis(MeshAxis::kTp).split(static_cast<int>(at.index("kv")), static_cast<int>(at.index("kv_copies")));
  const std::int64_t stage = at.index("pp");
  const bool is_end = stage == 0 || stage + 1 == at.count("pp");
  table_copies_ = axis(MeshAxis::kPp).split(is_end ? 0 : 1, static_cast<int>(stage));
  for (const MeshAxis each :
       {MeshAxis::kPp, MeshAxis::kDpReplicate, MeshAxis::kDpShard, MeshAxis::kCp, MeshAxis::kTp}) {
    all_.push_back(&axis(each));
  }
  for (const auto* group : {&data_, &fsdp_, &kv_copies_, &table_copies_}) {
    all_.push_back(group->get());
  }
}

std::vector<PartialGroup> MeshGroups::partial_groups() const {
  std::vector<PartialGroup> groups = {{"kv_copies", kv_copies_.get()}, {"table_copies", table_copies_.get()}};
  if (cuts_sequence_) {
    groups.push_back({"sp", &axis(MeshAxis::kTp)});
  }
  return groups;
}

void MeshGroups::advance() {
  for (Communicator* group : all_) {
    group->progress();
  }
}

Traffic MeshGroups::traffic() const {
  Traffic sum;
  for (const Communicator* group : all_) {
    sum += group->traffic();
  }
  return sum;
}

}  // namespace caravan
