// Operations in which the lanes of a warp meet.
#include <algorithm>

#include "host_runner/runner.h"
#include "host_runner/sanitizers.h"

namespace caravan::host_runner {

namespace {

/// Calls body(lane) for every lane of mask.
template <class Body>
void for_lanes(unsigned mask, const Body& body) {
  for (unsigned lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1U) != 0) {
      body(lane);
    }
  }
}

}  // namespace

/// Lanes of one mask that have come with one operation are complete when every lane of the mask is among
/// them. A lane that never comes leaves them waiting, which the scheduler reports when nothing else can run.
void Runner::warp_exchange(const char* operation, unsigned mask, WarpResolve resolve, void* payload,
                           Site site) {
  Thread& self = *current_;
  const auto index = static_cast<unsigned>(self.index);
  if ((mask >> (index % 32) & 1U) == 0) {
    fail_thread(
        fmt::format("{} with mask {:#010x}, in which its own lane {} is not", operation, mask, index % 32),
        site);
  }
  const RunnerWork work;
  self.mask = mask;
  self.payload = payload;
  tsan_release(&self.arrived);

  void* payloads[32] = {};
  const auto peer_at = [&](unsigned lane) -> Thread* {
    const unsigned peer = index / 32 * 32 + lane;
    return peer < static_cast<unsigned>(n_threads_) ? team_->threads[peer].get() : nullptr;
  };
  bool is_complete = true;
  for_lanes(mask, [&](unsigned lane) {
    const Thread* peer = peer_at(lane);
    const bool has_come =
        peer == &self || (peer != nullptr && peer->place == Thread::Place::kWarp && peer->mask == mask &&
                          std::string_view(peer->operation) == operation);
    is_complete = is_complete && has_come;
    payloads[lane] = has_come ? peer->payload : nullptr;
  });
  if (!is_complete) {
    suspend(self, Thread::Place::kWarp, operation, site);
    tsan_acquire(&self.woken);
    return;
  }
  self.operation = operation;
  self.site = site;
  for_lanes(mask, [&](unsigned lane) { tsan_acquire(&peer_at(lane)->arrived); });
  resolve(payloads, mask);
  for_lanes(mask, [&](unsigned lane) {
    Thread& peer = *peer_at(lane);
    tsan_release(&peer.woken);
    set_ready(peer);
  });
  self.fiber->suspend();  // the schedule says which lane goes on first
  tsan_acquire(&self.woken);
}

void warp_exchange(const char* operation, unsigned mask, WarpResolve resolve, void* payload, Site site) {
  runner().warp_exchange(operation, mask, resolve, payload, site);
}

int lane_index() {
  return runner().current().index % 32;
}

void shuffle(const char* operation, unsigned mask, ShufflePayload& payload, Site site) {
  if (payload.source < 0 || payload.source >= 32 ||
      (mask >> static_cast<unsigned>(payload.source) & 1U) == 0) {
    fail_thread(
        fmt::format("{} reads lane {}, which is not in mask {:#010x}", operation, payload.source, mask),
        site);
  }
  warp_exchange(
      operation, mask,
      [](void* const(&payloads)[32], unsigned lanes) {
        for_lanes(lanes, [&](unsigned lane) {
          auto& own = *static_cast<ShufflePayload*>(payloads[lane]);
          own.result = static_cast<const ShufflePayload*>(payloads[own.source])->value;
        });
      },
      &payload, site);
}

unsigned ballot(unsigned mask, bool predicate, Site site) {
  struct Vote {
    bool predicate;
    unsigned result;
  };
  Vote vote{predicate, 0};
  warp_exchange(
      "__ballot_sync", mask,
      [](void* const(&payloads)[32], unsigned lanes) {
        unsigned result = 0;
        for_lanes(lanes, [&](unsigned lane) {
          result |= static_cast<const Vote*>(payloads[lane])->predicate ? 1U << lane : 0U;
        });
        for_lanes(lanes, [&](unsigned lane) { static_cast<Vote*>(payloads[lane])->result = result; });
      },
      &vote, site);
  return vote.result;
}

}  // namespace caravan::host_runner

void __syncwarp(unsigned mask, const char* file, int line) {
  caravan::host_runner::warp_exchange("__syncwarp", mask, [](void* const(&)[32], unsigned) {}, nullptr,
                                      {file, line});
}
