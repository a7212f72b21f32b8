#include "caravan/data/document_stream.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "caravan/core/error.h"

namespace caravan {
namespace {

// Text waits in the shuffle buffer as text while it is not longer than this many bytes per token kept:
// encoding then happens just before the batch, and filling the buffer at an epoch's start costs reading only.
constexpr std::int64_t kTextBytesPerToken = 8;
constexpr std::int64_t kSlotBytes = 128;  // the slot itself and the allocator's share
constexpr std::size_t kScratchBytes = std::size_t{1} << 20U;

std::int64_t text_limit(std::int64_t max_seq_len) {
  return kTextBytesPerToken * max_seq_len;
}

}  // namespace

std::int64_t shuffle_slots(const Dataset& dataset, std::int64_t max_seq_len, std::int64_t wanted) {
  // Ids take four bytes each in memory and at least two in the file.
  const std::int64_t each =
      std::min(text_limit(max_seq_len), 2 * dataset.longest_sample_bytes()) + kSlotBytes;
  const std::int64_t everything = 2 * dataset.sample_bytes() + kSlotBytes * dataset.size();
  if (everything <= kShuffleBudgetBytes) {
    return wanted;
  }
  return std::min(wanted, std::max<std::int64_t>(1, kShuffleBudgetBytes / each));
}

DocumentStream::DocumentStream(const Dataset& dataset, const TextEncoder* encoder,
                               const DocumentStreamOptions& options, std::int64_t first)
    : reader_(dataset), encoder_(encoder), options_(options), vocab_size_(dataset.options().vocab_size) {
  const std::int64_t count = options_.part.samples();
  CARAVAN_CHECK(first >= 0 && first <= count, "document {} of {}", first, count);
  if (options_.shuffle_slots > 0) {
    order_.emplace(options_.order, count, options_.shuffle_slots);
    fill_buffer(first);
  } else {
    reader_.seek(options_.part.begin + first);
  }
}

// The order is replayed without data up to `first`; only the samples then in the buffer are read.
void DocumentStream::fill_buffer(std::int64_t first) {
  std::int64_t read = std::min(options_.part.samples(), options_.shuffle_slots);
  ShuffleOrder::Step step;
  for (std::int64_t i = 0; i < first; ++i) {
    order_->next(step);
    read += step.refill >= 0 ? 1 : 0;
  }
  const auto& samples = order_->slots();
  std::vector<std::size_t> by_sample(samples.size());
  std::iota(by_sample.begin(), by_sample.end(), std::size_t{0});
  std::sort(by_sample.begin(), by_sample.end(),
            [&samples](std::size_t a, std::size_t b) { return samples[a] < samples[b]; });
  slots_.resize(samples.size());
  for (const std::size_t slot : by_sample) {
    reader_.seek(options_.part.begin + samples[slot]);
    slots_[slot] = read_held();
  }
  if (!samples.empty()) {
    reader_.seek(options_.part.begin + read);
  }
}

bool DocumentStream::next(Document& document) {
  return order_ ? next_shuffled(document) : next_in_file_order(document);
}

bool DocumentStream::next_shuffled(Document& document) {
  ShuffleOrder::Step step;
  if (!order_->next(step)) {
    reader_.check_unchanged();
    return false;
  }
  Held& held = slots_[static_cast<std::size_t>(step.slot)];
  if (held.kind == SampleKind::kText) {
    encode(held.text, document);
  } else {
    document.ids = std::move(held.ids);
    document.is_truncated = held.is_truncated;
  }
  if (step.refill >= 0) {
    held = read_held();
  } else {
    if (&held != &slots_.back()) {
      held = std::move(slots_.back());
    }
    slots_.pop_back();
  }
  return true;
}

bool DocumentStream::next_in_file_order(Document& document) {
  if (reader_.position() == options_.part.end) {
    reader_.check_unchanged();
    return false;
  }
  CARAVAN_CHECK(reader_.read(sample_), "the data set ends before the part [{}, {})", options_.part.begin,
                options_.part.end);
  if (sample_.kind == SampleKind::kText) {
    encode(sample_.text, document);
  } else {
    document.ids = sample_.ids;
    cut(document.ids, document.is_truncated);
  }
  return true;
}

DocumentStream::Held DocumentStream::read_held() {
  CARAVAN_CHECK(reader_.read(sample_), "the data set ends before the part [{}, {})", options_.part.begin,
                options_.part.end);
  Held held;
  held.kind = sample_.kind;
  if (sample_.kind == SampleKind::kText &&
      static_cast<std::int64_t>(sample_.text.size()) <= text_limit(options_.max_seq_len)) {
    held.text = std::string_view(sample_.text);  // a copy of exactly its size
  } else if (sample_.kind == SampleKind::kText) {
    Document document;
    encode(sample_.text, document);
    held.kind = SampleKind::kIds;
    held.ids = std::move(document.ids);
    held.is_truncated = document.is_truncated;
  } else {
    held.is_truncated = static_cast<std::int64_t>(sample_.ids.size()) > options_.max_seq_len;
    const auto kept = held.is_truncated ? static_cast<std::size_t>(options_.max_seq_len) : sample_.ids.size();
    held.ids.assign(sample_.ids.begin(), sample_.ids.begin() + static_cast<std::ptrdiff_t>(kept));
  }
  if (sample_.text.capacity() > kScratchBytes ||
      sample_.ids.capacity() > kScratchBytes / sizeof(std::int32_t)) {
    sample_ = {};
  }
  return held;
}

void DocumentStream::encode(std::string_view text, Document& document) const {
  CARAVAN_CHECK(encoder_ != nullptr, "text without an encoder");
  document.ids = encoder_->encode_beginning(text, static_cast<std::size_t>(options_.max_seq_len) + 1);
  cut(document.ids, document.is_truncated);
  for (const std::int32_t id : document.ids) {
    if (id < 0 || (vocab_size_ && id >= *vocab_size_)) {
      fail<ConfigError>(
          "the tokenizer gives id {}, but the model's vocabulary has {} tokens; use the tokenizer that "
          "belongs to the model",
          id, vocab_size_.value_or(0));
    }
  }
}

void DocumentStream::cut(std::vector<std::int32_t>& ids, bool& is_truncated) const {
  const auto limit = static_cast<std::size_t>(options_.max_seq_len);
  is_truncated = ids.size() > limit;
  if (is_truncated) {
    ids.resize(limit);
    ids.shrink_to_fit();
  }
}

}  // namespace caravan
