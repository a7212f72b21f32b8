// What MpiCommunicator starts and finishes later. all_gather and reduce_scatter are one exchange of parts,
// each rank with each other: nobody waits for a third rank's turn, so they are complete as soon as the
// messages have arrived, whatever the other ranks do meanwhile, and every byte travels once.
#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "caravan/comm/mpi_communicator.h"
#include "caravan/core/error.h"
#include "caravan/core/parallel_for.h"
#include "copy.h"
#include "half_values.h"
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

/// out[begin, end) = ((parts[0] + parts[1]) + parts[2]) + ..., added as `Sum`; out may be one of them.
template <class T, class Sum, class Load, class Store>
void sum_range(const std::vector<TensorView>& parts, const TensorView& out, std::int64_t begin,
               std::int64_t end, const Load& load, const Store& store) {
  constexpr std::int64_t kBlock = 512;
  std::array<Sum, kBlock> sums{};
  for (std::int64_t at = begin; at < end; at += kBlock) {
    const std::int64_t count = std::min(kBlock, end - at);
    std::transform(parts.front().data<T>() + at, parts.front().data<T>() + at + count, sums.begin(), load);
    for (std::size_t p = 1; p < parts.size(); ++p) {
      std::transform(sums.begin(), sums.begin() + count, parts[p].data<T>() + at, sums.begin(),
                     [&](Sum sum, T value) { return static_cast<Sum>(sum + load(value)); });
    }
    std::transform(sums.begin(), sums.begin() + count, out.data<T>() + at, store);
  }
}

template <class T, class Sum = T, class Load, class Store>
void sum_in_order(const std::vector<TensorView>& parts, const TensorView& out, const Load& load,
                  const Store& store) {
  constexpr std::int64_t kGrain = 16384;
  parallel_for(out.numel(), kGrain, [&](std::int64_t begin, std::int64_t end) {
    sum_range<T, Sum>(parts, out, begin, end, load, store);
  });
}

void sum_in_order(const std::vector<TensorView>& parts, const TensorView& out) {
  const auto as_it_is = [](auto value) { return value; };
  const auto to_wide = [](auto value) { return to_float(value); };
  switch (out.dtype()) {
    case DType::kFloat32:
      return sum_in_order<float>(parts, out, as_it_is, as_it_is);
    case DType::kFloat64:
      return sum_in_order<double>(parts, out, as_it_is, as_it_is);
    case DType::kInt64:
      return sum_in_order<std::int64_t>(parts, out, as_it_is, as_it_is);
    case DType::kBFloat16:
      return sum_in_order<BFloat16, float>(parts, out, to_wide, [](float sum) { return to_bfloat16(sum); });
    case DType::kFloat16:
      return sum_in_order<Float16, float>(parts, out, to_wide, [](float sum) { return to_float16(sum); });
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
  if (detail::is_half(values.dtype())) {  // MPI 3.1 has no such numbers
    const TensorView wide = operation->staging(DType::kFloat32, {values.numel()});
    detail::widen(values, wide.data<float>());
    count_library_call(Collective::kAllReduce, operation->all_reduce(wide, op));
    return Pending([operation = std::move(operation), wide, values] {
      operation->wait();
      detail::round_to_half(wide.data<float>(), values);
    });
  }
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
