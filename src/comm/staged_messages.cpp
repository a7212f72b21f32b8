// The part of StagedCommunicator that is about two ranks, and about parts of any sizes on one.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "caravan/comm/staged_communicator.h"
#include "copy.h"
#include "staged_group.h"

namespace caravan {

using detail::copy_of;
using detail::item_bytes;
using detail::range;
using detail::StagedPart;
using detail::StagedPlan;

namespace {

/// Host memory for parts of which some are on the device.
class HostParts {
 public:
  HostParts(detail::StagedGroup& group, const Stream& stream, std::span<const TensorView> parts) {
    std::int64_t bytes = 0;
    for (const TensorView& part : parts) {
      bytes += is_away(part) ? aligned(part.bytes()) : 0;
    }
    if (bytes > 0) {
      loan_.emplace(group, stream, bytes);
    }
    std::int64_t at = 0;
    for (const TensorView& part : parts) {
      if (is_away(part)) {
        views_.emplace_back(loan_->memory() + at, part.dtype(), part.shape());
        at += aligned(part.bytes());
      } else {
        views_.push_back(part);
      }
    }
  }
  const std::vector<TensorView>& views() const { return views_; }

 private:
  static bool is_away(const TensorView& view) { return view.device().kind == DeviceKind::kCuda; }
  static std::int64_t aligned(std::int64_t bytes) { return (bytes + 63) / 64 * 64; }

  std::optional<detail::PieceLoan> loan_;
  std::vector<TensorView> views_;
};

/// Root's own part never travels: for the library it is empty, on both sides.
std::vector<TensorView> without_own(std::span<const TensorView> parts, std::size_t own) {
  std::vector<TensorView> travelling(parts.begin(), parts.end());
  travelling[own] = TensorView(nullptr, parts[own].dtype(), {0});
  return travelling;
}

}  // namespace

void StagedCommunicator::copy_anywhere(const TensorView& from, const TensorView& to, const Stream& stream) {
  if (is_on_device(from) || is_on_device(to)) {
    detail::copy_on_device(device(), from, to, stream);
  } else {
    detail::copy_elements(from, to);
  }
}

void StagedCommunicator::do_gatherv(const TensorView& mine, std::span<const TensorView> parts_on_root,
                                    int root) {
  const Stream stream = begin();
  if (rank() != root) {
    const HostParts staged(*group_, stream, {&mine, 1});
    copy_anywhere(mine, staged.views()[0], stream);
    device().record(stream)->wait();
    on_host(Collective::kGatherv, [&] { host().gatherv(staged.views()[0], {}, root); });
    return;
  }
  const auto own = static_cast<std::size_t>(root);
  const std::vector<TensorView> there = without_own(parts_on_root, own);
  const HostParts staged(*group_, stream, there);
  // First, so that `mine` may lie where another rank's part will arrive.
  copy_anywhere(mine, parts_on_root[own], stream);
  device().record(stream)->wait();
  on_host(Collective::kGatherv, [&] { host().gatherv(there[own], staged.views(), root); });
  for (std::size_t r = 0; r < there.size(); ++r) {
    copy_anywhere(staged.views()[r], there[r], stream);
  }
  end(stream);
}

void StagedCommunicator::do_scatterv(std::span<const TensorView> parts_on_root, const TensorView& mine,
                                     int root) {
  const Stream stream = begin();
  if (rank() != root) {
    const HostParts staged(*group_, stream, {&mine, 1});
    on_host(Collective::kScatterv, [&] { host().scatterv({}, staged.views()[0], root); });
    copy_anywhere(staged.views()[0], mine, stream);
    end(stream);
    return;
  }
  const auto own = static_cast<std::size_t>(root);
  const std::vector<TensorView> there = without_own(parts_on_root, own);
  const HostParts staged(*group_, stream, there);
  for (std::size_t r = 0; r < there.size(); ++r) {
    copy_anywhere(there[r], staged.views()[r], stream);
  }
  device().record(stream)->wait();
  on_host(Collective::kScatterv, [&] { host().scatterv(staged.views(), there[own], root); });
  // Last, so that `mine` may lie where another rank's part was read.
  copy_anywhere(parts_on_root[own], mine, stream);
  end(stream);
}

StagedPlan StagedCommunicator::message(const TensorView& values, int peer, int tag, bool sends, bool blocks) {
  const bool is_direct = group_->is_direct;
  const auto exchange = [group = group_, peer, tag, sends, blocks](const TensorView& view) {
    return std::function<Pending()>([=]() -> Pending {
      if (!blocks) {
        return sends ? group->host->start_send(view, peer, tag) : group->host->start_receive(view, peer, tag);
      }
      if (sends) {
        group->host->send(view, peer, tag);
      } else {
        group->host->receive(view, peer, tag);
      }
      return {};
    });
  };
  return {.elements = values.numel(),
          .per_piece = group_->piece_bytes / item_bytes(values),
          .host_bytes_per_element = is_direct ? 0 : item_bytes(values),
          .collective = Collective::kPointToPoint,
          .make = [=](std::int64_t begin, std::int64_t end, std::byte* memory) {
            const TensorView there = range(values, begin, end);
            const TensorView here(is_direct ? there.raw() : memory, there.dtype(), there.shape());
            StagedPart part{{}, exchange(here), {}};
            (sends ? part.in : part.out).push_back(sends ? copy_of(there, here) : copy_of(here, there));
            return part;
          }};
}

void StagedCommunicator::do_send(const TensorView& values, int peer, int tag) {
  if (is_on_device(values)) {
    run(message(values, peer, tag, true, true));
  } else {
    on_host(Collective::kPointToPoint, [&] { host().send(values, peer, tag); });
  }
}

void StagedCommunicator::do_receive(const TensorView& values, int peer, int tag) {
  if (is_on_device(values)) {
    run(message(values, peer, tag, false, true));
  } else {
    on_host(Collective::kPointToPoint, [&] { host().receive(values, peer, tag); });
  }
}

Pending StagedCommunicator::do_start_send(const TensorView& values, int peer, int tag) {
  return is_on_device(values)
             ? start(message(values, peer, tag, true, false))
             : on_host(Collective::kPointToPoint, [&] { return host().start_send(values, peer, tag); });
}

Pending StagedCommunicator::do_start_receive(const TensorView& values, int peer, int tag) {
  return is_on_device(values)
             ? start(message(values, peer, tag, false, false))
             : on_host(Collective::kPointToPoint, [&] { return host().start_receive(values, peer, tag); });
}

void StagedCommunicator::do_send_receive(const TensorView& outgoing, int to, const TensorView& incoming,
                                         int from) {
  if (!is_on_device(outgoing)) {
    on_host(Collective::kPointToPoint, [&] { host().send_receive(outgoing, to, incoming, from); });
    return;
  }
  if (to == rank()) {
    detail::copy_on_device(device(), outgoing, incoming, device().stream(StreamId::kCompute));
    return;
  }
  const bool is_direct = group_->is_direct;
  // The two directions may differ in length and type: pieces are counted in bytes.
  const std::int64_t longest = std::max(outgoing.bytes(), incoming.bytes());
  const std::int64_t per_piece = group_->piece_bytes / 16 * 16;
  const auto bytes_of = [](const TensorView& view, std::int64_t begin, std::int64_t end) {
    const std::int64_t item = item_bytes(view);
    return range(view, begin / item, end / item);
  };
  run({.elements = longest,
       .per_piece = per_piece,
       .host_bytes_per_element = is_direct ? 0 : 2,
       .collective = Collective::kPointToPoint,
       .make = [=, this](std::int64_t begin, std::int64_t end, std::byte* memory) {
         const TensorView from_there = bytes_of(outgoing, begin, end);
         const TensorView to_there = bytes_of(incoming, begin, end);
         const TensorView leaving(is_direct ? from_there.raw() : memory, from_there.dtype(),
                                  from_there.shape());
         const TensorView arriving(is_direct ? to_there.raw() : memory + (end - begin), to_there.dtype(),
                                   to_there.shape());
         return StagedPart{{copy_of(from_there, leaving)},
                           [=, this] {
                             host().send_receive(leaving, to, arriving, from);
                             return Pending();
                           },
                           {copy_of(arriving, to_there)}};
       }});
}

}  // namespace caravan
