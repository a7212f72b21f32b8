// The documents of one part in the order of one epoch, encoded and truncated.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "caravan/data/dataset.h"
#include "caravan/data/sampler.h"
#include "caravan/data/text_encoder.h"

namespace caravan {

/// Most bytes the shuffle buffer may hold; a buffer that could need more is made shorter (shuffle_slots).
inline constexpr std::int64_t kShuffleBudgetBytes = std::int64_t{128} << 20;

/// At most max_seq_len ids.
struct Document {
  std::vector<std::int32_t> ids;
  bool is_truncated = false;
};

struct DocumentStreamOptions {
  SamplePart part;
  std::int64_t max_seq_len = 512;
  std::int64_t shuffle_slots = 0;  // 0: file order
  ShuffleOrder::Key order;
};

/// Samples the shuffle buffer really holds: `wanted`, or fewer when samples of this data set and length could
/// need more than kShuffleBudgetBytes. Depends on the data set and max_seq_len only, so it is the same on
/// every rank and after a restart.
std::int64_t shuffle_slots(const Dataset& dataset, std::int64_t max_seq_len, std::int64_t wanted);

class DocumentStream {
 public:
  /// Begins at document `first` of the epoch's order, 0 <= first <= part.samples(); what lies before it is
  /// not encoded, and not read where the files can be entered by a seek. `encoder` may be null when no sample
  /// is text; it is not owned.
  DocumentStream(const Dataset& dataset, const TextEncoder* encoder, const DocumentStreamOptions& options,
                 std::int64_t first);

  /// False after the last document of the part. Throws IoError for changed files and ConfigError when the
  /// encoder gives ids the model does not have.
  bool next(Document& document);

 private:
  // A sample waiting in the shuffle buffer: text where that is short, else its ids already cut.
  struct Held {
    SampleKind kind = SampleKind::kIds;
    bool is_truncated = false;
    std::string text;
    std::vector<std::int32_t> ids;
  };

  void fill_buffer(std::int64_t first);
  Held read_held();
  bool next_in_file_order(Document& document);
  bool next_shuffled(Document& document);
  void encode(std::string_view text, Document& document) const;
  void cut(std::vector<std::int32_t>& ids, bool& is_truncated) const;

  SampleReader reader_;
  const TextEncoder* encoder_;
  DocumentStreamOptions options_;
  std::optional<std::int64_t> vocab_size_;
  std::optional<ShuffleOrder> order_;
  std::vector<Held> slots_;
  Sample sample_;
};

}  // namespace caravan
