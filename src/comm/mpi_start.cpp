// What MpiCommunicator starts and finishes later. all_gather and reduce_scatter are one exchange of parts,
// each rank with each other: nobody waits for a third rank's turn, so they are complete as soon as the
// messages have arrived, whatever the other ranks do meanwhile, and every byte travels once.
#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <vector>

#include "caravan/comm/mpi_communicator.h"
#include "caravan/core/error.h"
#include "caravan/core/parallel_for.h"
#include "copy.h"
#include "mpi_check.h"
#include "mpi_operation.h"

namespace caravan {
namespace {

Pending pending_of(std::shared_ptr<detail::MpiOperation> operation) {
  return Pending([operation = std::move(operation)] { operation->wait(); });
}

/// Part `rank` of a tensor of `size` equal parts.
TensorView part(const TensorView& whole, int rank, int size) {
  const std::int64_t count = whole.numel() / size;
  return whole.reshape({size, count}).rows(rank, rank + 1).reshape({count});
}

/// out[begin, end) = ((parts[0] + parts[1]) + parts[2]) + ..., out may be one of them.
template <class T>
void sum_range(const std::vector<TensorView>& parts, const TensorView& out, std::int64_t begin,
               std::int64_t end) {
  constexpr std::int64_t kBlock = 512;
  std::array<T, kBlock> sums{};
  for (std::int64_t at = begin; at < end; at += kBlock) {
    const std::int64_t count = std::min(kBlock, end - at);
    std::copy_n(parts.front().data<T>() + at, count, sums.begin());
    for (std::size_t p = 1; p < parts.size(); ++p) {
      std::transform(sums.begin(), sums.begin() + count, parts[p].data<T>() + at, sums.begin(),
                     std::plus<T>());
    }
    std::copy_n(sums.begin(), count, out.data<T>() + at);
  }
}

template <class T>
void sum_in_order(const std::vector<TensorView>& parts, const TensorView& out) {
  constexpr std::int64_t kGrain = 16384;
  parallel_for(out.numel(), kGrain,
               [&](std::int64_t begin, std::int64_t end) { sum_range<T>(parts, out, begin, end); });
}

void sum_in_order(const std::vector<TensorView>& parts, const TensorView& out) {
  switch (out.dtype()) {
    case DType::kFloat32:
      return sum_in_order<float>(parts, out);
    case DType::kFloat64:
      return sum_in_order<double>(parts, out);
    case DType::kInt64:
      return sum_in_order<std::int64_t>(parts, out);
    default:
      fail<InternalError>("sum of {}", out.str());
  }
}

}  // namespace

Pending MpiCommunicator::do_start_all_reduce(const TensorView& values, ReduceOp op) {
  if (group_->size == 1) {
    return {};
  }
  auto operation = std::make_shared<detail::MpiOperation>(group_);
  count_library_call(Collective::kAllReduce, operation->all_reduce(values, op));
  return pending_of(std::move(operation));
}

Pending MpiCommunicator::do_start_all_gather(const TensorView& mine, const TensorView& gathered) {
  const int size = group_->size;
  const int rank = group_->rank;
  detail::copy_elements(mine, part(gathered, rank, size));
  if (size == 1) {
    return {};
  }
  auto operation = std::make_shared<detail::MpiOperation>(group_);
  std::int64_t calls = 0;
  for (int step = 1; step < size; ++step) {  // not all ranks turn to the same one first
    const int from = (rank + size - step) % size;
    calls += operation->receive(part(gathered, from, size), from, detail::kExchangeTag);
  }
  for (int step = 1; step < size; ++step) {
    calls += operation->send(mine, (rank + step) % size, detail::kExchangeTag);
  }
  count_library_call(Collective::kAllGather, calls);
  return pending_of(std::move(operation));
}

Pending MpiCommunicator::do_start_reduce_scatter(const TensorView& values, const TensorView& mine) {
  const int size = group_->size;
  const int rank = group_->rank;
  if (size == 1) {
    detail::copy_elements(values, mine);
    return {};
  }
  auto operation = std::make_shared<detail::MpiOperation>(group_);
  const TensorView arriving = operation->staging(values.dtype(), {size - 1, mine.numel()});
  std::vector<TensorView> parts(static_cast<std::size_t>(size));
  parts[static_cast<std::size_t>(rank)] = part(values, rank, size);
  std::int64_t calls = 0;
  for (int step = 1; step < size; ++step) {
    const int from = (rank + size - step) % size;
    const TensorView room = arriving.rows(step - 1, step).reshape({mine.numel()});
    parts[static_cast<std::size_t>(from)] = room;
    calls += operation->receive(room, from, detail::kExchangeTag);
  }
  for (int step = 1; step < size; ++step) {
    const int to = (rank + step) % size;
    calls += operation->send(part(values, to, size), to, detail::kExchangeTag);
  }
  count_library_call(Collective::kReduceScatter, calls);
  return Pending([operation = std::move(operation), parts = std::move(parts), mine] {
    operation->wait();
    sum_in_order(parts, mine);
  });
}

Pending MpiCommunicator::do_start_send(const TensorView& values, int peer, int tag) {
  auto operation = std::make_shared<detail::MpiOperation>(group_);
  count_library_call(Collective::kPointToPoint, operation->send(values, peer, tag));
  return pending_of(std::move(operation));
}

Pending MpiCommunicator::do_start_receive(const TensorView& values, int peer, int tag) {
  auto operation = std::make_shared<detail::MpiOperation>(group_);
  count_library_call(Collective::kPointToPoint, operation->receive(values, peer, tag));
  return pending_of(std::move(operation));
}

void MpiCommunicator::do_reserve_reduce_scatter(std::int64_t part_bytes) {
  const auto bytes = static_cast<std::size_t>((group_->size - 1) * part_bytes);
  if (bytes > 0) {
    group_->staging.push_back({std::make_unique_for_overwrite<std::byte[]>(bytes), bytes});
  }
}

void MpiCommunicator::do_progress() {
  for (detail::MpiOperation* operation : group_->open) {
    operation->advance();
  }
}

}  // namespace caravan
