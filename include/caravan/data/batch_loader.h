// Batches of one rank's part of a data set, read and encoded ahead by a background thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "caravan/data/batch.h"
#include "caravan/data/bounded_queue.h"
#include "caravan/data/dataset.h"
#include "caravan/data/document_stream.h"
#include "caravan/data/sampler.h"
#include "caravan/data/text_encoder.h"

namespace caravan {

struct LoaderOptions {
  std::int64_t batch_size = 1;  // rows
  std::int64_t max_seq_len =
      512;  // tokens of a row before the shift; a batch has at most max_seq_len - 1 places
  bool shuffle = false;
  std::int64_t shuffle_buffer = 8192;  // samples
  std::uint64_t seed = 0;
  bool pack = false;
  std::int32_t pad_id = 0;            // stands in padded places, where nothing depends on it
  std::int64_t prefetch_batches = 4;  // ready before they are asked for
};

/// What was in the batches given out since the last seek.
struct LoaderCounts {
  std::int64_t samples = 0;
  std::int64_t truncated = 0;  // longer than max_seq_len
  std::int64_t without_target =
      0;  // fewer than two tokens: a row without valid targets; not there when packing
  std::int64_t valid_tokens = 0;
};

/// The same (data, part, options, epoch, batch number) gives the same batch, always. Batches are made ahead
/// by a thread; when it has made an epoch's last one, the next epoch's first are begun. A batch may have no
/// valid token at all (valid_tokens 0) when its samples have fewer than two tokens.
class BatchLoader {
 public:
  /// `encoder` may be null when all samples carry ids; it is not owned, must outlive the loader, and is
  /// called from the loader's thread. Throws ConfigError for impossible options, an empty part, and text
  /// without an encoder.
  BatchLoader(Dataset dataset, const TextEncoder* encoder, const SamplePart& part,
              const LoaderOptions& options);
  BatchLoader(const BatchLoader&) = delete;
  BatchLoader& operator=(const BatchLoader&) = delete;
  ~BatchLoader();

  /// The next batch is the first of this epoch (from 0, counted over all rounds).
  void start_epoch(std::int64_t epoch) { seek(epoch, 0); }
  /// The next batch is number `batch` of this epoch. What lies before it is neither encoded nor, in plain
  /// files, read; with packing it has to be. Past the end: next() returns false.
  void seek(std::int64_t epoch, std::int64_t batch);
  /// False at the end of the epoch. The last batch may have fewer rows. Rethrows what went wrong in the
  /// thread. Call start_epoch or a seek first.
  bool next(Batch& batch);

  /// For training by steps, epoch after epoch: the next batch is that of `step` (from 0). With packing all
  /// earlier batches are made again.
  void seek_step(std::int64_t step);
  /// As next(), but goes on with the next epoch. Throws IoError when a whole epoch has no batch (packing, and
  /// no sample has two tokens).
  void next_step(Batch& batch);

  /// Where the next batch lies: seek() to it goes on with that batch, on any loader with the same data and
  /// options. An epoch's end is the place behind its last batch.
  struct Position {
    std::int64_t epoch = 0;
    std::int64_t batch = 0;

    friend bool operator==(const Position&, const Position&) = default;
  };
  Position position() const { return {epoch_, batch_}; }

  /// Nothing when packing: how many rows come out depends on the samples' lengths and order.
  std::optional<std::int64_t> batches_per_epoch() const;
  /// Upper bound, exact without packing.
  std::int64_t max_batches_per_epoch() const;
  std::int64_t samples() const { return part_.samples(); }
  const LoaderCounts& counts() const { return counts_; }
  /// How long next() and next_step() have waited for a batch in all, since construction.
  double wait_seconds() const { return wait_seconds_; }
  /// Samples in the shuffle buffer, see shuffle_slots(); 0 without shuffling.
  std::int64_t shuffle_slots() const { return shuffle_slots_; }

 private:
  struct Item {
    Batch batch;
    LoaderCounts counts;
  };
  class Producer;
  struct Pass;
  using Queue = BoundedQueue<Item>;

  std::unique_ptr<Pass> begin_pass(std::int64_t epoch, std::int64_t batch) const;

  Dataset dataset_;
  const TextEncoder* encoder_;
  SamplePart part_;
  LoaderOptions options_;
  std::int64_t shuffle_slots_ = 0;
  std::int64_t epoch_ = 0;
  std::int64_t batch_ = 0;  // of this epoch, the next one
  LoaderCounts counts_;
  double wait_seconds_ = 0.0;
  std::unique_ptr<Pass> pass_;
  std::unique_ptr<Pass> next_pass_;  // begun when the thread of pass_ has made its last batch
};

}  // namespace caravan
