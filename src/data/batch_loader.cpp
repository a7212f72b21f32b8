#include "caravan/data/batch_loader.h"

#include <algorithm>
#include <exception>
#include <thread>
#include <utility>
#include <vector>

#include "caravan/core/clock.h"
#include "caravan/core/error.h"
#include "caravan/core/log.h"
#include "caravan/data/packing.h"

namespace caravan {

// Makes the batches of one epoch in order; lives in the loader's thread.
class BatchLoader::Producer {
 public:
  Producer(DocumentStream documents, const LoaderOptions& options)
      : documents_(std::move(documents)), options_(options), packer_(options.max_seq_len - 1) {}

  bool next(Item& item) {
    item.counts = {};
    rows_.clear();
    while (static_cast<std::int64_t>(rows_.size()) < options_.batch_size && add_row(item.counts)) {
    }
    if (rows_.empty()) {
      return false;
    }
    item.batch = make_batch(rows_, options_.pad_id);
    item.counts.valid_tokens = item.batch.valid_tokens;
    return true;
  }

 private:
  bool add_row(LoaderCounts& counts) {
    Document document;
    while (documents_.next(document)) {
      ++counts.samples;
      counts.truncated += document.is_truncated ? 1 : 0;
      counts.without_target += document.ids.size() < 2 ? 1 : 0;
      if (!options_.pack) {
        rows_.emplace_back().append_document(document.ids);
        return true;
      }
      if (auto row = packer_.add(document.ids)) {
        rows_.push_back(std::move(*row));
        return true;
      }
    }
    if (auto row = packer_.finish()) {
      rows_.push_back(std::move(*row));
      return true;
    }
    return false;
  }

  DocumentStream documents_;
  LoaderOptions options_;
  RowPacker packer_;
  std::vector<TokenRow> rows_;
};

namespace {

void check_options(const Dataset& dataset, const LoaderOptions& options) {
  CARAVAN_CHECK(options.prefetch_batches > 0, "prefetch_batches is {}", options.prefetch_batches);
  if (options.batch_size < 1) {
    fail<ConfigError>("batch_size is {}; it must be at least 1", options.batch_size);
  }
  if (options.max_seq_len < 2) {
    fail<ConfigError>("data.max_seq_len is {}; it must be at least 2, a token and its target",
                      options.max_seq_len);
  }
  if (options.shuffle && options.shuffle_buffer < 1) {
    fail<ConfigError>("data.shuffle_buffer is {}; it must be at least 1", options.shuffle_buffer);
  }
  const auto vocab_size = dataset.options().vocab_size;
  if (options.pad_id < 0 || (vocab_size && options.pad_id >= *vocab_size)) {
    fail<ConfigError>("data.pad_id is {}; it must be an id of the vocabulary, from 0 to below {}",
                      options.pad_id, vocab_size.value_or(std::int64_t{1} << 31U));
  }
}

}  // namespace

BatchLoader::BatchLoader(Dataset dataset, const TextEncoder* encoder, const SamplePart& part,
                         const LoaderOptions& options)
    : dataset_(std::move(dataset)), encoder_(encoder), part_(part), options_(options) {
  CARAVAN_CHECK(part.begin >= 0 && part.begin <= part.end && part.end <= dataset_.size(),
                "part [{}, {}) of {}", part.begin, part.end, dataset_.size());
  check_options(dataset_, options_);
  if (part.samples() == 0) {
    fail<ConfigError>("the part of rank {} has no samples; give more data or fewer ranks", part.index);
  }
  if (encoder_ == nullptr && dataset_.text_samples() > 0) {
    fail<ConfigError>(
        "{}: the sample is text and there is no tokenizer; set `tokenizer` or give rows with ids",
        dataset_.first_text_sample());
  }
  if (options_.shuffle) {
    shuffle_slots_ = caravan::shuffle_slots(dataset_, options_.max_seq_len, options_.shuffle_buffer);
    if (shuffle_slots_ < std::min(options_.shuffle_buffer, part_.samples())) {
      log::info("data: the shuffle buffer holds {} samples instead of {} to stay within {} MiB",
                shuffle_slots_, options_.shuffle_buffer, kShuffleBudgetBytes >> 20U);
    }
  }
}

// One pass over the part, made by a thread of its own.
struct BatchLoader::Pass {
  Pass(std::int64_t number, std::int64_t capacity)
      : epoch(number), queue(static_cast<std::size_t>(capacity)) {}
  Pass(const Pass&) = delete;
  Pass& operator=(const Pass&) = delete;
  ~Pass() {
    queue.close();
    thread.join();
  }

  std::int64_t epoch;
  Queue queue;
  std::thread thread;
};

BatchLoader::~BatchLoader() = default;

std::unique_ptr<BatchLoader::Pass> BatchLoader::begin_pass(std::int64_t epoch, std::int64_t batch) const {
  auto pass = std::make_unique<Pass>(epoch, options_.prefetch_batches);
  // With packing a batch's place in the stream is known only by making the ones before it.
  const std::int64_t passed = options_.pack ? batch : 0;
  const std::int64_t first =
      options_.pack ? 0 : std::min(batch, max_batches_per_epoch()) * options_.batch_size;
  const DocumentStreamOptions stream{
      part_, options_.max_seq_len, shuffle_slots_, {options_.seed, part_.index, epoch}};
  pass->thread =
      std::thread([this, stream, passed, first = std::min(first, part_.samples()), &queue = pass->queue] {
        try {
          Producer producer(DocumentStream(dataset_, encoder_, stream, first), options_);
          Item item;
          for (std::int64_t i = 0; i < passed && !queue.is_closed() && producer.next(item); ++i) {
          }
          while (producer.next(item) && queue.push(std::move(item))) {
          }
          queue.finish();
        } catch (...) {
          queue.fail(std::current_exception());
        }
      });
  return pass;
}

void BatchLoader::seek(std::int64_t epoch, std::int64_t batch) {
  CARAVAN_CHECK(epoch >= 0 && batch >= 0, "epoch {}, batch {}", epoch, batch);
  // In file order every epoch is the same.
  const bool is_ready = next_pass_ && batch == 0 && (next_pass_->epoch == epoch || shuffle_slots_ == 0);
  pass_.reset();
  pass_ = is_ready ? std::move(next_pass_) : nullptr;
  next_pass_.reset();
  if (!pass_) {
    pass_ = begin_pass(epoch, batch);
  }
  epoch_ = epoch;
  batch_ = batch;
  counts_ = {};
}

bool BatchLoader::next(Batch& batch) {
  CARAVAN_CHECK(pass_ != nullptr, "next() before start_epoch()");
  const StopWatch waiting;
  auto item = pass_->queue.pop();
  wait_seconds_ += waiting.seconds();
  if (!next_pass_ && pass_->queue.has_finished()) {
    next_pass_ = begin_pass(epoch_ + 1, 0);
  }
  if (!item) {
    return false;
  }
  batch = std::move(item->batch);
  ++batch_;
  counts_.samples += item->counts.samples;
  counts_.truncated += item->counts.truncated;
  counts_.without_target += item->counts.without_target;
  counts_.valid_tokens += item->counts.valid_tokens;
  return true;
}

void BatchLoader::seek_step(std::int64_t step) {
  CARAVAN_CHECK(step >= 0, "step {}", step);
  if (const auto batches = batches_per_epoch()) {
    seek(step / *batches, step % *batches);
    return;
  }
  seek(0, 0);
  Batch passed;
  for (std::int64_t i = 0; i < step; ++i) {
    next_step(passed);
  }
}

void BatchLoader::next_step(Batch& batch) {
  if (next(batch)) {
    return;
  }
  const LoaderCounts before = counts_;
  start_epoch(epoch_ + 1);
  if (!next(batch)) {
    fail<IoError>("{}: no sample of samples {} to {} has two tokens, there is nothing to train on",
                  dataset_.files().front().path, part_.begin, part_.end);
  }
  counts_.samples += before.samples;
  counts_.truncated += before.truncated;
  counts_.without_target += before.without_target;
  counts_.valid_tokens += before.valid_tokens;
}

std::optional<std::int64_t> BatchLoader::batches_per_epoch() const {
  return options_.pack ? std::nullopt : std::optional(max_batches_per_epoch());
}

std::int64_t BatchLoader::max_batches_per_epoch() const {
  return (part_.samples() + options_.batch_size - 1) / options_.batch_size;
}

}  // namespace caravan
