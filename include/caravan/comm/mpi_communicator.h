// A group of MPI processes; tensors in host memory. MPI 3.1 counts and displacements are int: everything
// larger is cut into several calls.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>

#include "caravan/comm/communicator.h"

namespace caravan {

namespace detail {
struct MpiGroup;  // the MPI handle: mpi.h stays out of the headers
}

class MpiCommunicator final : public Communicator {
 public:
  /// The most elements one MPI call may span, displacements included.
  static constexpr std::int64_t kMaxCount = std::numeric_limits<int>::max();

  /// A group over all processes of the job, with its own message space. `max_count` in [1, kMaxCount] must be
  /// the same on every rank; tests lower it. Collective. MPI must be running (MpiSession), else
  /// InternalError.
  static std::unique_ptr<MpiCommunicator> over_world(std::int64_t max_count = kMaxCount);

  ~MpiCommunicator() override;
  int rank() const override;
  int size() const override;

 protected:
  /// Keeps max_count.
  std::unique_ptr<Communicator> do_split(int color, int key) override;
  void do_all_reduce(const TensorView& values, ReduceOp op) override;
  void do_broadcast(const TensorView& values, int root) override;
  void do_gatherv(const TensorView& mine, std::span<const TensorView> parts_on_root, int root) override;
  void do_scatterv(std::span<const TensorView> parts_on_root, const TensorView& mine, int root) override;
  void do_send(const TensorView& values, int peer, int tag) override;
  void do_receive(const TensorView& values, int peer, int tag) override;
  void do_send_receive(const TensorView& outgoing, int to, const TensorView& incoming, int from) override;
  void do_barrier() override;
  Pending do_start_all_reduce(const TensorView& values, ReduceOp op) override;
  Pending do_start_all_gather(const TensorView& mine, const TensorView& gathered) override;
  Pending do_start_reduce_scatter(const TensorView& values, const TensorView& mine) override;
  Pending do_start_send(const TensorView& values, int peer, int tag) override;
  Pending do_start_receive(const TensorView& values, int peer, int tag) override;
  void do_progress() override;
  void do_reserve_reduce_scatter(std::int64_t part_bytes) override;

 private:
  explicit MpiCommunicator(std::unique_ptr<detail::MpiGroup> group);

  std::shared_ptr<detail::MpiGroup> group_;  // also held by what was started and not yet waited on
};

}  // namespace caravan
