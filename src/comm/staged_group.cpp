#include "staged_group.h"

#include <algorithm>
#include <array>
#include <optional>

#include "start_queue.h"

namespace caravan::detail {
namespace {

void enqueue(StagedGroup& group, const std::vector<StagedCopy>& copies, const Stream& stream) {
  for (const StagedCopy& copy : copies) {
    if (copy.bytes > 0 && copy.to != copy.from) {
      group.device.copy(copy.to, copy.from, copy.bytes, stream);
    }
  }
}

std::int64_t whole_bytes(const StagedPlan& plan) {
  return plan.elements * plan.host_bytes_per_element;
}

}  // namespace

StagedOperation::StagedOperation(std::shared_ptr<StagedGroup> group, const Stream& stream,
                                 const StagedPlan& plan)
    : group_(std::move(group)),
      stream_(stream),
      bytes_(whole_bytes(plan)),
      loan_(*group_, stream, bytes_),
      exchanges_(static_cast<std::size_t>(plan.pieces())) {
  for (std::int64_t begin = 0; begin < plan.elements; begin += plan.per_piece) {
    parts_.push_back(plan.make(begin, std::min(begin + plan.per_piece, plan.elements),
                               loan_.memory() + begin * plan.host_bytes_per_element));
  }
}

void StagedOperation::begin(const std::shared_ptr<StagedOperation>& operation) {
  StagedGroup& group = *operation->group_;
  for (std::size_t i = 0; i < operation->parts_.size(); ++i) {
    enqueue(group, operation->parts_[i].in, operation->stream_);
    StartQueue::of_this_rank().push(group.device.record(operation->stream_), [operation, i] {
      try {
        operation->exchanges_[i] = operation->parts_[i].exchange();
      } catch (...) {
        operation->error_ = std::current_exception();
      }
    });
  }
}

void StagedOperation::wait() {
  StartQueue::of_this_rank().flush();
  if (error_ != nullptr) {
    std::rethrow_exception(error_);
  }
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    exchanges_[i].wait();
    enqueue(*group_, parts_[i].out, stream_);
  }
}

void run_staged(StagedGroup& group, const Stream& stream, const StagedPlan& plan) {
  constexpr std::size_t kWindow = 3;
  StartQueue::of_this_rank().flush();
  std::array<std::optional<PieceLoan>, kWindow> loans;  // taken as they are needed
  struct Arriving {
    StagedPart part;
    Mark copied;
  };
  const std::int64_t piece_bytes = std::min(plan.per_piece, plan.elements) * plan.host_bytes_per_element;
  const auto arrive = [&](std::int64_t piece) {
    auto& loan = loans.at(static_cast<std::size_t>(piece) % kWindow);
    if (loan) {
      loan->until_free();
    } else {
      loan.emplace(group, stream, piece_bytes);
    }
    const std::int64_t begin = piece * plan.per_piece;
    Arriving arriving{plan.make(begin, std::min(begin + plan.per_piece, plan.elements), loan->memory()),
                      nullptr};
    enqueue(group, arriving.part.in, stream);
    arriving.copied = group.device.record(stream);
    return arriving;
  };
  const std::int64_t pieces = plan.pieces();
  std::optional<Arriving> next;
  for (std::int64_t i = 0; i < pieces; ++i) {
    const Arriving now = next ? std::move(*next) : arrive(i);
    next.reset();
    if (i + 1 < pieces) {
      next = arrive(i + 1);
    }
    now.copied->wait();
    now.part.exchange().wait();
    enqueue(group, now.part.out, stream);
    loans.at(static_cast<std::size_t>(i) % kWindow)->mark();
  }
}

}  // namespace caravan::detail
