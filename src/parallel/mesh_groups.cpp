#include "caravan/parallel/mesh_groups.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "caravan/core/error.h"

namespace caravan {
namespace {

constexpr std::array kAxes = {MeshAxis::kDpReplicate, MeshAxis::kPp, MeshAxis::kDpShard, MeshAxis::kCp,
                              MeshAxis::kTp};
constexpr std::array kDataAxes = {MeshAxis::kDpReplicate, MeshAxis::kDpShard, MeshAxis::kCp};
constexpr std::array kFsdpAxes = {MeshAxis::kDpShard, MeshAxis::kCp};

/// Sends every member's rank in the job around and adds them up.
void check_members(Communicator& group, std::int64_t me, const std::vector<std::int64_t>& expected) {
  const auto size = static_cast<std::int64_t>(expected.size());
  std::vector<std::int64_t> found(static_cast<std::size_t>(group.size()));
  group.all_gather(TensorView(&me, DType::kInt64, {1}),
                   TensorView(found.data(), DType::kInt64, {group.size()}));
  const std::int64_t sum = group.all_reduce_value(me + 1);
  if (found != expected) {
    fail<CommError>("mesh self-test: group {} of rank {} has the ranks {}, it must have {}, in this order",
                    group.name(), me, fmt::join(found, ", "), fmt::join(expected, ", "));
  }
  const std::int64_t right = std::accumulate(expected.begin(), expected.end(), size);  // counted from 1
  if (sum != right) {
    fail<CommError>("mesh self-test: group {} of rank {} adds the numbers of its {} ranks up to {}, not {}",
                    group.name(), me, size, sum, right);
  }
}

}  // namespace

MeshGroups::MeshGroups(Communicator& world, const MeshSizes& sizes, const Coordinates& at)
    : mesh_(world, sizes), cuts_sequence_(at.count("sp") > 1) {
  data_ = mesh_.group(world, kDataAxes);
  fsdp_ = mesh_.group(world, kFsdpAxes);
  kv_copies_ =
      axis(MeshAxis::kTp).split(static_cast<int>(at.index("kv")), static_cast<int>(at.index("kv_copies")));
  const std::int64_t stage = at.index("pp");
  const bool is_end = stage == 0 || stage + 1 == at.count("pp");
  table_copies_ = axis(MeshAxis::kPp).split(is_end ? 0 : 1, static_cast<int>(stage));
  kv_copies_->set_name("kv_copies");
  table_copies_->set_name("table_copies");
  table_copies_->set_stream(StreamId::kParamComm);
  for (const MeshAxis each : kAxes) {
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

void MeshGroups::check(Communicator& world) const {
  // The ranks that differ from this one on `axes` only, and on these as `belongs` together with this one.
  const auto check = [&](Communicator& group, std::span<const MeshAxis> axes, const auto& belongs) {
    std::vector<std::int64_t> expected;
    for (int rank = 0; rank < world.size(); ++rank) {
      bool is_member = true;
      for (const MeshAxis axis : kAxes) {
        const auto theirs = mesh_.sizes().coordinate(axis, rank);
        const bool may_differ = std::find(axes.begin(), axes.end(), axis) != axes.end();
        is_member = is_member &&
                    (may_differ ? belongs(theirs, mesh_.coordinate(axis)) : theirs == mesh_.coordinate(axis));
      }
      if (is_member) {
        expected.push_back(rank);
      }
    }
    check_members(group, world.rank(), expected);
  };
  const auto all = [](auto, auto) { return true; };
  for (const MeshAxis each : kAxes) {
    check(axis(each), {&each, 1}, all);
  }
  check(data(), kDataAxes, all);
  check(fsdp(), kFsdpAxes, all);
  // Neighbours on tp share a kv head; the first and the last stage share a tied table, and the others
  // nothing.
  constexpr std::array kTpAxis = {MeshAxis::kTp};
  constexpr std::array kPpAxis = {MeshAxis::kPp};
  check(*kv_copies_, kTpAxis,
        [&](auto theirs, auto mine) { return theirs / kv_copies_->size() == mine / kv_copies_->size(); });
  const auto is_end = [&](auto stage) { return stage == 0 || stage + 1 == axis(MeshAxis::kPp).size(); };
  check(*table_copies_, kPpAxis, [&](auto theirs, auto mine) { return is_end(theirs) == is_end(mine); });
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
