// Processes of one machine that share a file: the transport of the fake NCCL.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

namespace fake_nccl {

struct SharedMemory;

class SharedRanks {
 public:
  static std::string make_name();
  /// Blocks until all ranks have come.
  SharedRanks(const std::string& name, int ranks, int rank);

  // Each returns early, its work undone, when a rank is lost and this one has left.
  void reduce(const void* from, void* to, std::size_t count, int type, int op);
  void reduce_scatter(const void* from, void* to, std::size_t count_of_part, int type, int op);
  void gather(const void* from, void* to, std::size_t bytes_of_part);
  void broadcast(const void* from, void* to, std::size_t bytes, int root);

  /// As much of a message as there is room for, or as has come; 0: try again.
  std::size_t put(int peer, const std::byte* from, std::size_t bytes);
  std::size_t take(int peer, std::byte* to, std::size_t bytes);
  /// Between two tries; false when there is no use in another.
  bool pause();

  /// The others see that this rank is gone.
  void leave();

  std::atomic<int> async_error{0};

 private:
  /// Everybody's piece is in its slot between two barriers.
  bool barrier();
  bool has_lost_a_rank() const;

  SharedMemory* shared_ = nullptr;
  int ranks_;
  int rank_;
  std::atomic<bool> has_left_{false};
};

}  // namespace fake_nccl
