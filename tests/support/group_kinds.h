// Every kind of group over real ranks, so that one test body holds all of them to the same contract: tensors
// are put where the group works and brought back from there.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "caravan/comm/mpi_communicator.h"
#include "caravan/comm/nccl_communicator.h"
#include "caravan/comm/staged_communicator.h"
#include "tests/support/fake_nccl.h"
#include "tests/support/origin_data.h"
#include "tests/support/threaded_device.h"

namespace caravan::test {

enum class GroupKind {
  kMpi,     // tensors in host memory
  kStaged,  // on a device, through pinned memory
  kDirect,  // on a device that the library reads itself: the threaded one, whose memory is the host's
  kNccl,    // on a device, over the fake NCCL
};
inline constexpr GroupKind kGroupKinds[] = {GroupKind::kMpi, GroupKind::kStaged, GroupKind::kDirect,
                                            GroupKind::kNccl};

inline std::string name_of(GroupKind kind) {
  switch (kind) {
    case GroupKind::kMpi:
      return "MPI";
    case GroupKind::kStaged:
      return "staged MPI";
    case GroupKind::kDirect:
      return "CUDA-aware MPI";
    case GroupKind::kNccl:
      return "NCCL";
  }
  return "";
}

/// All ranks of the job. Calls of the library span at most `limit` elements; on a device, pieces are small.
class TestGroup {
 public:
  explicit TestGroup(GroupKind kind, std::int64_t limit = MpiCommunicator::kMaxCount) : kind_(kind) {
    auto host = MpiCommunicator::over_world(limit);
    if (kind == GroupKind::kMpi) {
      group_ = std::move(host);
      return;
    }
    constexpr int kDelay = 30;
    constexpr std::int64_t kPieceBytes = 1696;  // many pieces, and none of the tests' sizes
    device_ = std::make_unique<ThreadedDevice>(kDelay);
    if (kind == GroupKind::kNccl) {
      group_ = std::make_unique<NcclCommunicator>(std::move(host), *device_, fake_nccl());
      return;
    }
    group_ = std::make_unique<StagedCommunicator>(
        std::move(host), *device_,
        kind == GroupKind::kDirect ? DevicePath::kDirect : DevicePath::kThroughHost, kPieceBytes);
  }

  Communicator* operator->() const { return group_.get(); }
  Communicator& operator*() const { return *group_; }
  GroupKind kind() const { return kind_; }
  /// The group ends before its device, as in a program.
  void close() { group_.reset(); }
  bool is_mpi() const { return kind_ == GroupKind::kMpi; }
  ThreadedDevice* device() const { return device_.get(); }

 private:
  GroupKind kind_;
  std::unique_ptr<ThreadedDevice> device_;
  std::unique_ptr<Communicator> group_;
};

/// A matrix where a group works. On a device the values arrive late, in the order of the compute stream.
template <class T>
class Placed {
 public:
  Placed(const TestGroup& group, OwnedMatrix<T> matrix) : Placed(group.device(), std::move(matrix)) {}
  Placed(ThreadedDevice* device, OwnedMatrix<T> matrix) : matrix_(std::move(matrix)), device_(device) {
    if (device_ != nullptr) {
      const TensorView here = matrix_.view();
      memory_ = device_->allocate(here.bytes());
      if (here.bytes() > 0) {
        device_->copy(memory_.data(), here.raw(), here.bytes(), device_->stream(StreamId::kCompute));
      }
    }
  }
  /// Its memory may go when nobody writes to it any more.
  ~Placed() {
    if (device_ != nullptr) {
      device_->synchronize();
    }
  }
  Placed(const Placed&) = delete;
  Placed& operator=(const Placed&) = delete;
  Placed(Placed&&) = delete;
  Placed& operator=(Placed&&) = delete;

  TensorView view() {
    const TensorView here = matrix_.view();
    return device_ != nullptr ? memory_.view(0, here.dtype(), here.shape()) : here;
  }
  /// The elements as an op on the compute stream would find them now.
  OwnedMatrix<T>& fetched() {
    const TensorView here = matrix_.view();
    if (device_ != nullptr && here.bytes() > 0) {
      device_->copy(here.raw(), memory_.data(), here.bytes(), device_->stream(StreamId::kCompute));
      device_->synchronize();
    }
    return matrix_;
  }
  std::int64_t rows() const { return matrix_.rows; }

 private:
  OwnedMatrix<T> matrix_;
  ThreadedDevice* device_ = nullptr;
  Buffer memory_;
};

}  // namespace caravan::test
