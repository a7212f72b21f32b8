// gatherv and scatterv over MPI. Only root knows all parts: the ranks first tell it what they hold, root
// plans the calls (gather_plan.h) and tells every rank its count in each; a disagreement reaches all ranks
// the same way, so all of them throw instead of some waiting forever.
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "caravan/comm/mpi_communicator.h"
#include "caravan/core/error.h"
#include "caravan/core/narrow.h"
#include "copy.h"
#include "gather_plan.h"
#include "mpi_check.h"
#include "mpi_group.h"

namespace caravan {
namespace {

struct Agreement {
  std::vector<detail::GatherCall> calls;  // root only
  std::vector<int> my_counts;             // per call; on root all 0, its own part does not travel
};

/// What root tells everybody first. Plain int64 numbers, broadcast as such.
struct Header {
  std::int64_t call_count = 0;
  std::int64_t wrong_rank = -1;  // -1: all agree; else the rest says how this rank does not
  std::int64_t given_count = 0;
  std::int64_t given_dtype = 0;
  std::int64_t expected_count = 0;
  std::int64_t expected_dtype = 0;
};
constexpr int kHeaderWords = sizeof(Header) / sizeof(std::int64_t);

struct Holding {
  std::int64_t count = 0;
  std::int64_t dtype = 0;
};

Header compare(std::span<const TensorView> parts, const std::vector<Holding>& holdings) {
  Header header;
  for (std::size_t r = 0; r < parts.size(); ++r) {
    const auto dtype = static_cast<std::int64_t>(parts[r].dtype());
    if (holdings[r].count != parts[r].numel() || holdings[r].dtype != dtype) {
      header.wrong_rank = static_cast<std::int64_t>(r);
      header.given_count = holdings[r].count;
      header.given_dtype = holdings[r].dtype;
      header.expected_count = parts[r].numel();
      header.expected_dtype = dtype;
      break;
    }
  }
  return header;
}

std::vector<int> counts_of_all(const std::vector<detail::GatherCall>& calls) {
  std::vector<int> counts;
  for (const detail::GatherCall& call : calls) {
    counts.insert(counts.end(), call.counts.begin(), call.counts.end());
  }
  return counts;
}

Agreement agree(const char* function, const detail::MpiGroup& group, const TensorView& mine,
                std::span<const TensorView> parts, int root) {
  const bool is_root = group.rank == root;
  const auto group_size = static_cast<std::size_t>(group.size);
  Holding holding{mine.numel(), static_cast<std::int64_t>(mine.dtype())};
  std::vector<Holding> holdings(is_root ? group_size : 0);
  CARAVAN_MPI(MPI_Gather(&holding, 2, MPI_INT64_T, holdings.data(), 2, MPI_INT64_T, root, group.comm));
  Agreement agreement;
  Header header;
  if (is_root) {
    header = compare(parts, holdings);
    agreement.calls = detail::plan_gather_calls(parts, root, group.max_count);
    header.call_count = static_cast<std::int64_t>(agreement.calls.size());
  }
  CARAVAN_MPI(MPI_Bcast(&header, kHeaderWords, MPI_INT64_T, root, group.comm));
  if (header.wrong_rank >= 0) {
    fail<CommError>("{}: rank {} has {} elements of {}, root {} expects {} of {}; all ranks must cut alike",
                    function, header.wrong_rank, header.given_count,
                    dtype_name(static_cast<DType>(header.given_dtype)), root, header.expected_count,
                    dtype_name(static_cast<DType>(header.expected_dtype)));
  }
  const auto call_count = static_cast<std::size_t>(header.call_count);
  if (call_count <= 1) {  // the usual case saves one broadcast: everything travels at once
    agreement.my_counts.assign(call_count, is_root ? 0 : narrow<int>(mine.numel()));
    return agreement;
  }
  std::vector<int> counts =
      is_root ? counts_of_all(agreement.calls) : std::vector<int>(call_count * group_size);
  CARAVAN_MPI(MPI_Bcast(counts.data(), narrow<int>(std::ssize(counts)), MPI_INT, root, group.comm));
  for (std::size_t i = 0; i < call_count; ++i) {
    agreement.my_counts.push_back(counts[i * group_size + static_cast<std::size_t>(group.rank)]);
  }
  return agreement;
}

}  // namespace

void MpiCommunicator::do_gatherv(const TensorView& mine, std::span<const TensorView> parts_on_root,
                                 int root) {
  const Agreement agreement = agree("gatherv", *group_, mine, parts_on_root, root);
  const bool is_root = group_->rank == root;
  const MPI_Datatype type = detail::mpi_type(mine.dtype());
  if (is_root) {
    // First, so that `mine` may lie where another rank's part will arrive.
    detail::copy_elements(mine, parts_on_root[static_cast<std::size_t>(root)]);
  }
  char* next = static_cast<char*>(mine.raw());
  for (std::size_t i = 0; i < agreement.my_counts.size(); ++i) {
    if (is_root) {
      const detail::GatherCall& call = agreement.calls[i];
      CARAVAN_MPI(MPI_Gatherv(MPI_IN_PLACE, 0, type, call.base, call.counts.data(), call.displacements.data(),
                              type, root, group_->comm));
    } else {
      const int count = agreement.my_counts[i];
      CARAVAN_MPI(MPI_Gatherv(next, count, type, nullptr, nullptr, nullptr, type, root, group_->comm));
      next += count * static_cast<std::ptrdiff_t>(dtype_bytes(mine.dtype()));
    }
    count_library_call(Collective::kGatherv);
  }
}

void MpiCommunicator::do_scatterv(std::span<const TensorView> parts_on_root, const TensorView& mine,
                                  int root) {
  const Agreement agreement = agree("scatterv", *group_, mine, parts_on_root, root);
  const bool is_root = group_->rank == root;
  const MPI_Datatype type = detail::mpi_type(mine.dtype());
  char* next = static_cast<char*>(mine.raw());
  for (std::size_t i = 0; i < agreement.my_counts.size(); ++i) {
    if (is_root) {
      const detail::GatherCall& call = agreement.calls[i];
      CARAVAN_MPI(MPI_Scatterv(call.base, call.counts.data(), call.displacements.data(), type, MPI_IN_PLACE,
                               0, type, root, group_->comm));
    } else {
      const int count = agreement.my_counts[i];
      CARAVAN_MPI(MPI_Scatterv(nullptr, nullptr, nullptr, type, next, count, type, root, group_->comm));
      next += count * static_cast<std::ptrdiff_t>(dtype_bytes(mine.dtype()));
    }
    count_library_call(Collective::kScatterv);
  }
  if (is_root) {
    // Last, so that `mine` may lie where another rank's part was read.
    detail::copy_elements(parts_on_root[static_cast<std::size_t>(root)], mine);
  }
}

}  // namespace caravan
