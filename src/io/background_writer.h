// Writes blocks to a file in the order they come, on a thread of its own: making the next block and writing
// the ones before overlap.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <thread>

namespace caravan {

class BackgroundWriter {
 public:
  static constexpr std::size_t kBlockBytes = std::size_t{8} << 20U;
  static constexpr std::size_t kAlignment = 4096;  // of the memory, for writes past the page cache

  /// `write` gets each block with its place in the file and throws when that fails; it is called on the
  /// thread.
  using Write = std::function<void(std::int64_t offset, std::span<const std::byte> bytes)>;
  explicit BackgroundWriter(Write write) : write_(std::move(write)) {}
  /// Drops what has not been written yet.
  ~BackgroundWriter();
  BackgroundWriter(const BackgroundWriter&) = delete;
  BackgroundWriter& operator=(const BackgroundWriter&) = delete;

  /// Memory of kBlockBytes to be filled, the same until submit(). Waits while all blocks are on their way;
  /// rethrows what `write` threw.
  std::span<std::byte> block();
  /// Hands the first `bytes` of block() over.
  void submit(std::int64_t offset, std::size_t bytes);
  /// Returns when everything handed over is written; rethrows what `write` threw.
  void drain();

 private:
  static constexpr std::size_t kBlocks = 3;

  struct FreeAligned {
    void operator()(std::byte* memory) const;
  };
  using Memory = std::unique_ptr<std::byte, FreeAligned>;
  struct Item {
    Memory memory;
    std::int64_t offset = 0;
    std::size_t bytes = 0;
  };

  void work();
  void rethrow_problem() const;

  Write write_;
  Memory current_;
  std::size_t made_ = 0;  // blocks in existence
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> queue_;
  std::deque<Memory> free_;
  bool is_writing_ = false;
  bool is_ending_ = false;
  std::exception_ptr problem_;
  std::thread thread_;
};

}  // namespace caravan
