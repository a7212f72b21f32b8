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
}

std::vector<PartialGroup> MeshGroups::partial_groups() const {
  std::vector<PartialGroup> groups = {{"kv_copies", kv_copies_.get()}, {"table_copies", table_copies_.get()}};
  if (cuts_sequence_) {
    groups.push_back({"sp", &axis(MeshAxis::kTp)});
  }
  return groups;
}

Traffic MeshGroups::traffic() const {
  Traffic sum;
  for (const MeshAxis each :
       {MeshAxis::kPp, MeshAxis::kDpReplicate, MeshAxis::kDpShard, MeshAxis::kCp, MeshAxis::kTp}) {
    sum += axis(each).traffic();
  }
  for (const Communicator* group : {data_.get(), fsdp_.get(), kv_copies_.get(), table_copies_.get()}) {
    sum += group->traffic();
  }
  return sum;
}

}  // namespace caravan
