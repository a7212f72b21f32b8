// One group of ranks and the collectives on it. Implementations: SelfCommunicator (one rank),
// MpiCommunicator (host memory), StagedCommunicator and NcclCommunicator (host memory and one device),
// CountingCommunicator (any place in any group, counts and moves nothing). A group of one rank is valid
// everywhere and moves nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "caravan/backend/pending.h"
#include "caravan/backend/stream.h"
#include "caravan/comm/operation_log.h"
#include "caravan/comm/traffic.h"
#include "caravan/core/tensor_view.h"

namespace caravan {

enum class ReduceOp : std::uint8_t { kSum, kMax, kMin };

/// All views are contiguous, on a device that the group serves() (InternalError otherwise), and stay the
/// caller's; groups that move nothing take tensors without memory as well. Every function blocks until this
/// rank's result is in place and its input may be overwritten, but those called start_*: theirs is the
/// Pending's wait(), and until then nobody else touches the views.
///
/// In the memory of a device, "in place" is a matter of the device's order, not of the host's: the work
/// begins after what the compute stream had when the function was called, and what is enqueued on the compute
/// stream after its return (or the Pending's wait()) finds the result. The function itself may return long
/// before, and whoever reads the tensor on the host copies it there as after any op. A call's tensors are all
/// on one device, but for gatherv and scatterv, where each may be anywhere; a message is sent from and
/// received into the same kind of memory.
///
/// "Collective" means every rank of the group calls it, in the same order,
/// with the same root and operation; waits may come in any order. A failure of the library or a disagreement
/// between ranks is a CommError; after one the group is unusable and the job must end (MpiSession::abort),
/// since other ranks may still wait. One thread at a time. Operations of groups of several real ranks are
/// noted in OperationLog::of_this_rank(), with `site`, where they were asked for.
class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  /// This rank in the group, 0 <= rank() < size().
  virtual int rank() const = 0;
  virtual int size() const = 0;

  /// What messages about its operations call the group: "tp", "dp_shard"; a group that nobody named is
  /// "unnamed".
  const std::string& name() const { return name_; }
  void set_name(std::string name) { name_ = std::move(name); }
  /// True for tensors that the group can move.
  virtual bool serves(const Device& device) const { return device.kind == DeviceKind::kCpu; }
  /// The stream of a device on which the group's work is enqueued, beside the computation.
  StreamId stream_id() const { return stream_id_; }
  void set_stream(StreamId id) { stream_id_ = id; }

  /// values <- reduction over all ranks, element by element, in place; all ranks end with the same bits.
  /// Same shape and dtype on every rank: float32, float64, int64, bfloat16 or float16, else CommError. Where
  /// a rank has NaN, kSum gives NaN, kMax and kMin anything. 16-bit elements are added in float32 and rounded
  /// once; NCCL, which adds them as they pass by, rounds more often. Collective.
  void all_reduce(const TensorView& values, ReduceOp op = ReduceOp::kSum,
                  CallSite site = CallSite::current());
  /// values <- root's values. Same shape and dtype on every rank, any dtype. Collective.
  void broadcast(const TensorView& values, int root, CallSite site = CallSite::current());
  /// Rank r's `mine` goes to parts_on_root[r] on `root`; the other ranks' parts_on_root is not looked at.
  /// Parts may have any sizes (also none), any order in memory and any gaps, but must not overlap
  /// (InternalError). Root's own `mine` may be its own part: then nothing is copied. Only elements and dtype
  /// must agree between `mine` and its part, not the shape; where they do not, every rank throws CommError.
  /// Parts within one tensor travel in one library call. Collective.
  void gatherv(const TensorView& mine, std::span<const TensorView> parts_on_root, int root,
               CallSite site = CallSite::current());
  /// The way back: parts_on_root[r] goes to rank r's `mine`. As gatherv, but parts may overlap. Collective.
  void scatterv(std::span<const TensorView> parts_on_root, const TensorView& mine, int root,
                CallSite site = CallSite::current());

  /// gathered <- every rank's `mine` in rank order: size() equal parts of any dtype, the same everywhere.
  /// `mine` may be this rank's part of `gathered`: then nothing is copied; other overlap is an InternalError.
  /// Collective.
  void all_gather(const TensorView& mine, const TensorView& gathered, CallSite site = CallSite::current());
  /// mine <- the sum over all ranks of part rank() of `values`, which is size() equal parts long. The ranks
  /// are added in rank order, so the bits depend on nothing else (with NCCL: in an order of its own, which
  /// depends on sizes and connections). dtypes as all_reduce; `values` stays as it is. `mine` may be this
  /// rank's part of `values`; other overlap is an InternalError. Collective.
  void reduce_scatter(const TensorView& values, const TensorView& mine, CallSite site = CallSite::current());
  /// Takes the memory now that one reduce_scatter into `part_bytes` at a time needs for what arrives: else
  /// the first one takes it. Returns its bytes.
  std::int64_t reserve_reduce_scatter(std::int64_t part_bytes);

  /// The same, started: complete after wait(). Their arithmetic may be done in wait(). Collective (the
  /// start).
  [[nodiscard]] Pending start_all_reduce(const TensorView& values, ReduceOp op = ReduceOp::kSum,
                                         CallSite site = CallSite::current());
  [[nodiscard]] Pending start_all_gather(const TensorView& mine, const TensorView& gathered,
                                         CallSite site = CallSite::current());
  [[nodiscard]] Pending start_reduce_scatter(const TensorView& values, const TensorView& mine,
                                             CallSite site = CallSite::current());
  /// Lets what was started on this group advance; call it between pieces of other work, since a library
  /// without threads of its own moves data only when it is called.
  void progress() { do_progress(); }

  /// `tag` in [0, kMaxTag] matches sends with receives. Both sides give the same number of elements and
  /// dtype; a message of another size is a CommError on the receiver. `peer` is another rank.
  void send(const TensorView& values, int peer, int tag, CallSite site = CallSite::current());
  void receive(const TensorView& values, int peer, int tag, CallSite site = CallSite::current());
  /// A started send matches a plain receive and the other way round. Between two ranks, messages of one tag
  /// arrive in the order in which they were sent and are taken in the order in which receives were started.
  [[nodiscard]] Pending start_send(const TensorView& values, int peer, int tag,
                                   CallSite site = CallSite::current());
  [[nodiscard]] Pending start_receive(const TensorView& values, int peer, int tag,
                                      CallSite site = CallSite::current());
  /// Before messages with these tags pass between neighbours on the ring of ranks: each tag and direction
  /// gets a way of its own, so that none waits behind another (NcclCommunicator; others need nothing). What
  /// was prepared before stays. Collective.
  void prepare_messages(std::span<const int> tags) { do_prepare_messages(tags); }
  /// Sends to `to` and receives from `from` at once, so a ring cannot lock up. Either may be this rank, then
  /// both must be. `outgoing` and `incoming` must not overlap.
  void send_receive(const TensorView& outgoing, int to, const TensorView& incoming, int from,
                    CallSite site = CallSite::current());
  static constexpr int kMaxTag = 32765;

  /// Returns when every rank has called it. Collective.
  void barrier(CallSite site = CallSite::current());

  /// Groups of the ranks that gave the same colour (>= 0), ordered by key, then by rank here. Collective.
  std::unique_ptr<Communicator> split(int color, int key, CallSite site = CallSite::current());
  /// A group of this rank alone that serves the same devices.
  virtual std::unique_ptr<Communicator> alone() const;

  /// bytes <- root's bytes, whatever length the others had. Collective.
  void broadcast_bytes(std::string& bytes, int root, CallSite site = CallSite::current());
  /// On root one string per rank, in rank order; empty on the others. Collective.
  std::vector<std::string> gather_bytes(const std::string& bytes, int root,
                                        CallSite site = CallSite::current());
  /// The reduction of one number per rank, on every rank. Collective.
  double all_reduce_value(double value, ReduceOp op = ReduceOp::kSum, CallSite site = CallSite::current());
  std::int64_t all_reduce_value(std::int64_t value, ReduceOp op = ReduceOp::kSum,
                                CallSite site = CallSite::current());

  /// Whether the group may be called while the device of its tensors records (Backend::begin_recording): its
  /// reductions and gathers, started ones with their wait(), then become part of the recording. All ranks of
  /// the group record the same calls, and replay them at the same places among its others.
  virtual bool can_be_recorded() const { return size() == 1; }
  /// Around the replay of a recording within which the group has moved `moved`: one operation of the log and
  /// the watch. RecordedExchanges calls them.
  void begin_replay(const Traffic& moved, CallSite site = CallSite::current());
  void end_replay();

  /// Everything moved since construction or reset_traffic().
  const Traffic& traffic() const { return traffic_; }
  void reset_traffic(const Traffic& to = {}) { traffic_ = to; }

 protected:
  Communicator() = default;

  // What an implementation supplies. Views, roots and peers have been checked; an implementation adds only
  // library_calls to the traffic.
  virtual void do_all_reduce(const TensorView& values, ReduceOp op) = 0;
  virtual void do_broadcast(const TensorView& values, int root) = 0;
  virtual void do_gatherv(const TensorView& mine, std::span<const TensorView> parts_on_root, int root) = 0;
  virtual void do_scatterv(std::span<const TensorView> parts_on_root, const TensorView& mine, int root) = 0;
  virtual void do_send(const TensorView& values, int peer, int tag) = 0;
  virtual void do_receive(const TensorView& values, int peer, int tag) = 0;
  virtual void do_send_receive(const TensorView& outgoing, int to, const TensorView& incoming, int from) = 0;
  virtual void do_barrier() = 0;
  virtual std::unique_ptr<Communicator> do_split(int color, int key) = 0;
  virtual Pending do_start_all_reduce(const TensorView& values, ReduceOp op) = 0;
  virtual Pending do_start_all_gather(const TensorView& mine, const TensorView& gathered) = 0;
  virtual Pending do_start_reduce_scatter(const TensorView& values, const TensorView& mine) = 0;
  virtual Pending do_start_send(const TensorView& values, int peer, int tag) = 0;
  virtual Pending do_start_receive(const TensorView& values, int peer, int tag) = 0;
  virtual void do_progress() {}
  virtual void do_reserve_reduce_scatter(std::int64_t /*part_bytes*/) {}
  virtual void do_prepare_messages(std::span<const int> /*tags*/) {}
  virtual void do_begin_replay() {}
  virtual void do_end_replay() {}
  /// True where views without memory (DeviceKind::kNone) are as good as any.
  virtual bool accepts_shapes() const { return false; }

  void count_library_call(Collective collective, std::int64_t calls = 1) {
    traffic_[collective].library_calls += calls;
  }
  /// For a group that works for another one, which notes the operations itself.
  static void keep_out_of_log(Communicator& group) { group.is_quiet_ = true; }
  /// The one that do_* is asked for.
  const CommOperation& current_operation() const { return current_; }
  /// An operation that is none of the interface's, noted while it blocks: "nccl_init".
  void noted(std::string_view what, const std::function<void()>& work, CallSite site = CallSite::current());

 private:
  void check_view(const char* function, const TensorView& view) const;
  void check_reducible(const char* function, const TensorView& values) const;
  void check_message(const char* function, const TensorView& values, int peer, int tag) const;
  void check_equal_parts(const char* function, const TensorView& whole, const TensorView& mine) const;
  void check_rank(const char* function, int rank) const;
  void check_parts(const char* function, std::span<const TensorView> parts, const TensorView& mine) const;
  void count(Collective collective, std::int64_t sent_bytes, std::int64_t received_bytes);

  /// From now on the current one.
  const CommOperation& begin_operation(std::string_view what, std::int64_t bytes, CallSite site);
  /// False for groups that never wait.
  bool is_logged() const { return size() > 1 && !is_quiet_ && !accepts_shapes(); }
  class Call;
  Pending logged(Pending pending);

  std::string name_ = "unnamed";
  StreamId stream_id_ = StreamId::kTensorComm;
  bool is_quiet_ = false;
  std::int64_t operations_ = 0;
  OperationLog::Ticket replay_ = 0;  // of the replay that is being enqueued
  CommOperation current_;
  Traffic traffic_;
};

}  // namespace caravan
