#include "caravan/parallel/pipeline_simulator.h"

#include <algorithm>
#include <map>
#include <optional>
#include <tuple>

#include "caravan/core/error.h"

namespace caravan {
namespace {

bool is_send(PipelineOp op) {
  return op == PipelineOp::kSendActivation || op == PipelineOp::kSendGradient;
}
bool is_activation(PipelineOp op) {
  return op == PipelineOp::kSendActivation || op == PipelineOp::kReceiveActivation;
}

/// Messages of one kind from one rank to another.
using ChannelKey = std::tuple<bool, int, int>;
/// Receiving stage and micro-batch.
using MessageKey = std::pair<int, std::int64_t>;

struct Message {
  std::optional<double> send;     // when the sender came to it
  std::optional<double> receive;  // when the receiver did
  std::optional<double> arrival;  // once it is known
  std::size_t number = 0;         // of those sent on the channel
};

struct Channel {
  std::map<MessageKey, Message> messages;
  std::vector<MessageKey> sent;
};

class Simulation {
 public:
  Simulation(const PipelinePlan& plan, const SimulationOptions& options)
      : plan_(plan), options_(options), cursors_(plan.ranks.size()) {
    timeline_.ranks.resize(plan.ranks.size());
    timeline_.peak_in_flight.resize(plan.ranks.size());
  }

  PipelineTimeline run() {
    // Times follow from what was posted, not from the order in which ranks are looked at.
    bool has_moved = true;
    while (has_moved) {
      has_moved = false;
      for (std::size_t rank = 0; rank < cursors_.size(); ++rank) {
        while (advance(rank)) {
          has_moved = true;
        }
      }
    }
    for (std::size_t rank = 0; rank < cursors_.size(); ++rank) {
      report_blocked(rank);
    }
    return std::move(timeline_);
  }

 private:
  struct Cursor {
    std::size_t next = 0;
    double time = 0.0;
    bool has_posted = false;  // the exchange at `next`
    std::int64_t in_flight = 0;
  };

  const StageDurations& durations(int stage) const {
    return options_.stages.size() == 1 ? options_.stages.front()
                                       : options_.stages.at(static_cast<std::size_t>(stage));
  }

  double duration(const PipelineStep& step) const {
    const StageDurations& of = durations(step.stage);
    switch (step.op) {
      case PipelineOp::kForward:
        return of.forward;
      case PipelineOp::kBackward:
        return of.backward_input + of.backward_weight;
      case PipelineOp::kBackwardInput:
        return of.backward_input;
      case PipelineOp::kBackwardWeight:
        return of.backward_weight;
      default:
        return 0.0;
    }
  }

  Channel& channel(std::size_t rank, const PipelineStep& step) {
    const auto self = static_cast<int>(rank);
    return is_send(step.op) ? channels_[{is_activation(step.op), self, step.peer}]
                            : channels_[{is_activation(step.op), step.peer, self}];
  }

  static MessageKey key(const PipelineStep& step) {
    const int next = is_activation(step.op) ? step.stage + 1 : step.stage - 1;
    return {is_send(step.op) ? next : step.stage, step.micro_batch};
  }

  std::size_t end_of_exchange(std::size_t rank) const {
    const auto& steps = plan_.ranks[rank];
    std::size_t end = cursors_[rank].next;
    while (end < steps.size() && is_message(steps[end].op)) {
      ++end;
    }
    return end;
  }

  /// When a message leaves its sender, which needs a free buffer; nothing while that is not known.
  std::optional<double> started_at(Channel& channel, const Message& message) const {
    if (!message.send || options_.send_buffers == 0) {
      return message.send && message.receive ? std::max(message.send, message.receive) : std::nullopt;
    }
    const auto buffers = static_cast<std::size_t>(options_.send_buffers);
    if (message.number < buffers) {
      return message.send;
    }
    const auto freed = arrived_at(channel, channel.messages.at(channel.sent[message.number - buffers]));
    return freed ? std::max(message.send, freed) : std::nullopt;
  }

  std::optional<double> arrived_at(Channel& channel, Message& message) const {
    if (!message.arrival) {
      const auto started = started_at(channel, message);
      if (started && message.receive) {
        message.arrival = std::max(*started + options_.message, *message.receive);
      }
    }
    return message.arrival;
  }

  /// When this end of a message is done; nothing while that is not known.
  std::optional<double> done_at(std::size_t rank, const PipelineStep& step) {
    Channel& on = channel(rank, step);
    Message& message = on.messages.at(key(step));
    return is_send(step.op) && options_.send_buffers > 0 ? started_at(on, message) : arrived_at(on, message);
  }

  bool advance(std::size_t rank) {
    Cursor& cursor = cursors_[rank];
    const auto& steps = plan_.ranks[rank];
    if (cursor.next == steps.size()) {
      return false;
    }
    if (is_message(steps[cursor.next].op)) {
      return exchange(rank);
    }
    const PipelineStep& step = steps[cursor.next++];
    const double end = cursor.time + duration(step);
    timeline_.ranks[rank].push_back({step, cursor.time, end});
    cursor.time = end;
    if (step.op == PipelineOp::kForward) {
      ++cursor.in_flight;
    } else if (step.op != PipelineOp::kBackwardInput) {
      --cursor.in_flight;
    }
    timeline_.peak_in_flight[rank] = std::max(timeline_.peak_in_flight[rank], cursor.in_flight);
    return true;
  }

  /// True when something changed: the exchange was started, or is over.
  bool exchange(std::size_t rank) {
    Cursor& cursor = cursors_[rank];
    const auto& steps = plan_.ranks[rank];
    const std::size_t end = end_of_exchange(rank);
    if (!cursor.has_posted) {
      for (std::size_t i = cursor.next; i < end; ++i) {
        Channel& on = channel(rank, steps[i]);
        Message& message = on.messages[key(steps[i])];
        if (is_send(steps[i].op)) {
          message.send = cursor.time;
          message.number = on.sent.size();
          on.sent.push_back(key(steps[i]));
        } else {
          message.receive = cursor.time;
        }
      }
      cursor.has_posted = true;
      return true;
    }
    double done = cursor.time;
    for (std::size_t i = cursor.next; i < end; ++i) {
      const auto at = done_at(rank, steps[i]);
      if (!at) {
        return false;
      }
      done = std::max(done, *at);
    }
    cursor.next = end;
    cursor.time = done;
    cursor.has_posted = false;
    return true;
  }

  void report_blocked(std::size_t rank) {
    for (std::size_t i = cursors_[rank].next; i < end_of_exchange(rank); ++i) {
      const PipelineStep& step = plan_.ranks[rank][i];
      if (!done_at(rank, step)) {
        timeline_.blocked.push_back(fmt::format("rank {} waits at step {}: {}", rank, i, describe(step)));
      }
    }
  }

  const PipelinePlan& plan_;
  const SimulationOptions& options_;
  std::vector<Cursor> cursors_;
  std::map<ChannelKey, Channel> channels_;
  PipelineTimeline timeline_;
};

}  // namespace

double PipelineTimeline::end() const {
  double end = 0.0;
  for (const auto& rank : ranks) {
    end = std::max(end, rank.empty() ? 0.0 : rank.back().end);
  }
  return end;
}

double PipelineTimeline::bubble_fraction() const {
  double busy = 0.0;
  for (const auto& rank : ranks) {
    for (const Interval& interval : rank) {
      busy += interval.end - interval.begin;
    }
  }
  const double all = end() * static_cast<double>(ranks.size());
  return all > 0.0 ? 1.0 - busy / all : 0.0;
}

PipelineTimeline simulate(const PipelinePlan& plan, const SimulationOptions& options) {
  const auto stages = static_cast<std::size_t>(plan.shape.stages());
  CARAVAN_CHECK(options.stages.size() == 1 || options.stages.size() == stages,
                "durations of {} stages for a pipeline of {}", options.stages.size(), stages);
  return Simulation(plan, options).run();
}

}  // namespace caravan
