#include "caravan/comm/staged_communicator.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "caravan/comm/self_communicator.h"
#include "caravan/core/error.h"
#include "copy.h"
#include "half_values.h"
#include "staged_group.h"
#include "start_queue.h"

namespace caravan {

using detail::copy_of;
using detail::item_bytes;
using detail::range;
using detail::StagedPart;
using detail::StagedPlan;

namespace {

TensorView host_view(std::byte* memory, const TensorView& like) {
  return {memory, like.dtype(), like.shape()};
}

/// The tensor as the library may see it where it reads device memory itself.
TensorView as_host(const TensorView& view) {
  return {view.raw(), view.dtype(), view.shape()};
}

}  // namespace

StagedCommunicator::StagedCommunicator(std::unique_ptr<Communicator> host, DeviceStreams& device,
                                       DevicePath path, std::int64_t piece_bytes)
    : group_(std::make_shared<detail::StagedGroup>(std::move(host), device, path == DevicePath::kDirect,
                                                   piece_bytes)) {
  constexpr std::int64_t kLargestElement = 16;
  CARAVAN_CHECK(piece_bytes >= kLargestElement, "pieces of {} bytes", piece_bytes);
  keep_out_of_log(*group_->host);
}

StagedCommunicator::~StagedCommunicator() = default;

int StagedCommunicator::rank() const {
  return group_->host->rank();
}

int StagedCommunicator::size() const {
  return group_->host->size();
}

Communicator& StagedCommunicator::host() {
  return *group_->host;
}

DeviceStreams& StagedCommunicator::device() const {
  return group_->device;
}

bool StagedCommunicator::serves(const Device& device) const {
  return device.kind == DeviceKind::kCpu || device == group_->device.device();
}

std::unique_ptr<Communicator> StagedCommunicator::do_split(int color, int key) {
  return std::make_unique<StagedCommunicator>(
      host().split(color, key), device(), group_->is_direct ? DevicePath::kDirect : DevicePath::kThroughHost,
      group_->piece_bytes);
}

std::unique_ptr<Communicator> StagedCommunicator::alone() const {
  return std::make_unique<SelfCommunicator>(group_->device);
}

Stream StagedCommunicator::begin() {
  const Stream stream = device().stream(stream_id());
  device().wait(stream, device().record(device().stream(StreamId::kCompute)));
  return stream;
}

void StagedCommunicator::end(const Stream& stream) {
  device().wait(device().stream(StreamId::kCompute), device().record(stream));
}

void StagedCommunicator::run(const StagedPlan& plan) {
  const Stream stream = begin();
  detail::run_staged(*group_, stream, plan);
  end(stream);
  count_library_call(plan.collective, plan.pieces() * plan.calls_per_piece);
}

Pending StagedCommunicator::start(const StagedPlan& plan) {
  const Stream stream = begin();
  auto operation = std::make_shared<detail::StagedOperation>(group_, stream, plan);
  detail::StagedOperation::begin(operation);
  count_library_call(plan.collective, plan.pieces() * plan.calls_per_piece);
  return Pending([operation = std::move(operation), group = group_, stream] {
    operation->wait();
    group->device.wait(group->device.stream(StreamId::kCompute), group->device.record(stream));
  });
}

StagedCommunicator::HostCall::HostCall(StagedCommunicator& group, Collective collective)
    : group_(group), collective_(collective) {
  detail::StartQueue::of_this_rank().flush();
  before_ = group.host().traffic()[collective].library_calls;
}

StagedCommunicator::HostCall::~HostCall() {
  group_.count_library_call(collective_, group_.host().traffic()[collective_].library_calls - before_);
}

StagedPlan StagedCommunicator::reduction(const TensorView& values, ReduceOp op, bool blocks) {
  const bool is_direct = group_->is_direct && !detail::is_half(values.dtype());
  const auto exchange = [group = group_, op, blocks](const TensorView& view) {
    return std::function<Pending()>([=] {
      if (!blocks) {
        return group->host->start_all_reduce(view, op);
      }
      group->host->all_reduce(view, op);
      return Pending();
    });
  };
  return {.elements = values.numel(),
          .per_piece = group_->piece_bytes / item_bytes(values),
          .host_bytes_per_element = is_direct ? 0 : item_bytes(values),
          .collective = Collective::kAllReduce,
          .make = [=](std::int64_t begin, std::int64_t end, std::byte* memory) {
            const TensorView there = range(values, begin, end);
            if (is_direct) {
              return StagedPart{{}, exchange(as_host(there)), {}};
            }
            const TensorView here = host_view(memory, there);
            return StagedPart{{copy_of(there, here)}, exchange(here), {copy_of(here, there)}};
          }};
}

void StagedCommunicator::do_all_reduce(const TensorView& values, ReduceOp op) {
  if (!is_on_device(values)) {
    on_host(Collective::kAllReduce, [&] { host().all_reduce(values, op); });
  } else if (size() > 1) {
    run(reduction(values, op, true));
  }
}

Pending StagedCommunicator::do_start_all_reduce(const TensorView& values, ReduceOp op) {
  if (!is_on_device(values)) {
    return on_host(Collective::kAllReduce, [&] { return host().start_all_reduce(values, op); });
  }
  return size() > 1 ? start(reduction(values, op, false)) : Pending();
}

void StagedCommunicator::do_broadcast(const TensorView& values, int root) {
  if (!is_on_device(values)) {
    on_host(Collective::kBroadcast, [&] { host().broadcast(values, root); });
    return;
  }
  const bool is_direct = group_->is_direct;
  const bool is_root = rank() == root;
  run({.elements = size() > 1 ? values.numel() : 0,
       .per_piece = group_->piece_bytes / item_bytes(values),
       .host_bytes_per_element = is_direct ? 0 : item_bytes(values),
       .collective = Collective::kBroadcast,
       .make = [=, this](std::int64_t begin, std::int64_t end, std::byte* memory) {
         const TensorView there = range(values, begin, end);
         const TensorView here = is_direct ? as_host(there) : host_view(memory, there);
         StagedPart part;
         part.exchange = [=, this] {
           host().broadcast(here, root);
           return Pending();
         };
         (is_root ? part.in : part.out).push_back(is_root ? copy_of(there, here) : copy_of(here, there));
         return part;
       }});
}

Pending StagedCommunicator::do_start_all_gather(const TensorView& mine, const TensorView& gathered) {
  if (!is_on_device(gathered)) {
    return on_host(Collective::kAllGather, [&] { return host().start_all_gather(mine, gathered); });
  }
  const std::int64_t ranks = size();
  const std::int64_t count = mine.numel();
  const std::int64_t own = rank();
  const TensorView own_part = range(gathered, own * count, (own + 1) * count);
  detail::copy_on_device(device(), mine, own_part, device().stream(StreamId::kCompute));
  if (ranks == 1) {
    return {};
  }
  const bool is_direct = group_->is_direct;
  StagedPlan plan{.elements = count,
                  .per_piece = std::max<std::int64_t>(group_->piece_bytes / (ranks * item_bytes(mine)), 1),
                  .host_bytes_per_element = is_direct ? 0 : ranks * item_bytes(mine),
                  .collective = Collective::kAllGather,
                  .calls_per_piece = 2 * (ranks - 1),
                  .make = {}};
  if (is_direct) {
    plan.per_piece = std::max<std::int64_t>(count, 1);
    plan.make = [=, group = group_](std::int64_t, std::int64_t, std::byte*) {
      return StagedPart{
          {}, [=] { return group->host->start_all_gather(as_host(own_part), as_host(gathered)); }, {}};
    };
    return start(plan);
  }
  plan.make = [=, group = group_](std::int64_t begin, std::int64_t end, std::byte* memory) {
    const TensorView all(memory, gathered.dtype(), {ranks, end - begin});
    StagedPart part;
    for (std::int64_t r = 0; r < ranks; ++r) {
      const TensorView there = range(gathered, r * count + begin, r * count + end);
      if (r == own) {
        part.in.push_back(copy_of(range(mine, begin, end), all.rows(r, r + 1)));
      } else {
        part.out.push_back(copy_of(all.rows(r, r + 1), there));
      }
    }
    part.exchange = [=] { return group->host->start_all_gather(all.rows(own, own + 1), all); };
    return part;
  };
  return start(plan);
}

Pending StagedCommunicator::do_start_reduce_scatter(const TensorView& values, const TensorView& mine) {
  if (!is_on_device(values)) {
    return on_host(Collective::kReduceScatter, [&] { return host().start_reduce_scatter(values, mine); });
  }
  const std::int64_t ranks = size();
  const std::int64_t count = mine.numel();
  const std::int64_t own = rank();
  if (ranks == 1) {
    detail::copy_on_device(device(), values, mine, device().stream(StreamId::kCompute));
    return {};
  }
  return start({.elements = count,
                .per_piece = std::max<std::int64_t>(group_->piece_bytes / (ranks * item_bytes(mine)), 1),
                .host_bytes_per_element = ranks * item_bytes(mine),
                .collective = Collective::kReduceScatter,
                .calls_per_piece = 2 * (ranks - 1),
                .make = [=, group = group_](std::int64_t begin, std::int64_t end, std::byte* memory) {
                  const TensorView all(memory, values.dtype(), {ranks, end - begin});
                  const TensorView sum = all.rows(own, own + 1);
                  StagedPart part;
                  for (std::int64_t r = 0; r < ranks; ++r) {
                    const TensorView there = range(values, r * count + begin, r * count + end);
                    part.in.push_back(copy_of(there, all.rows(r, r + 1)));
                  }
                  part.exchange = [=] { return group->host->start_reduce_scatter(all, sum); };
                  part.out.push_back(copy_of(sum, range(mine, begin, end)));
                  return part;
                }});
}

void StagedCommunicator::do_barrier() {
  on_host(Collective::kBarrier, [&] { host().barrier(); });
}

void StagedCommunicator::do_progress() {
  detail::StartQueue::of_this_rank().advance();
  host().progress();
}

void StagedCommunicator::do_reserve_reduce_scatter(std::int64_t part_bytes) {
  // The parts on their way to the host, and what arrives beside them.
  detail::PinnedPool::Piece piece = group_->pool.take(size() * part_bytes);
  group_->pool.give_back(std::move(piece));
  host().reserve_reduce_scatter(part_bytes);
}

}  // namespace caravan
