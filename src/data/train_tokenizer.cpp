// From data files to a tokenizer.json: counts pieces, trains, writes.
#include "caravan/core/atomic_file.h"
#include "caravan/core/error.h"
#include "caravan/data/bpe_trainer.h"
#include "caravan/data/dataset.h"
#include "pre_tokenizer.h"
#include "tokenizer_json_writer.h"

namespace caravan {
namespace {

constexpr std::int64_t kByteTokens = 256;
constexpr std::int64_t kMaxVocabSize = 1'000'000;

void check_options(const BpeTrainerOptions& options) {
  const std::int64_t smallest = kByteTokens + kTrainedSpecialTokens;
  if (options.vocab_size < smallest || options.vocab_size > kMaxVocabSize) {
    fail<ConfigError>("vocabulary size {}: must be {} ({} bytes and {} special tokens) to {}",
                      options.vocab_size, smallest, kByteTokens, kTrainedSpecialTokens, kMaxVocabSize);
  }
  if (options.min_frequency < 1) {
    fail<ConfigError>("minimum frequency {}: must be at least 1", options.min_frequency);
  }
}

PieceCounts count_pieces(const Dataset& dataset, TokenizerTrainingReport& report) {
  const PreTokenizer pre_tokenizer(kLlama3Pattern, "Llama 3's pattern");
  PieceCounts counts;
  SampleReader reader(dataset);
  Sample sample;
  std::string key;
  while (reader.read(sample)) {
    if (sample.kind != SampleKind::kText) {
      fail<IoError>("sample {} of {} carries ids; a tokenizer is trained on text", reader.position(),
                    dataset.size());
    }
    ++report.samples;
    report.text_bytes += static_cast<std::int64_t>(sample.text.size());
    PieceCursor pieces(pre_tokenizer, sample.text);
    for (std::string_view piece; pieces.next(piece);) {
      key.assign(piece);
      ++counts[key];
    }
  }
  report.distinct_pieces = static_cast<std::int64_t>(counts.size());
  return counts;
}

}  // namespace

TokenizerTrainingReport train_tokenizer(const std::vector<std::string>& corpora,
                                        const BpeTrainerOptions& options, const std::string& path) {
  check_options(options);
  TokenizerTrainingReport report;
  const PieceCounts counts = count_pieces(Dataset(corpora), report);
  const TrainedBpe trained =
      train_bpe(counts, options.vocab_size - kTrainedSpecialTokens, options.min_frequency);
  report.vocab_size = static_cast<std::int64_t>(trained.tokens.size()) + kTrainedSpecialTokens;
  write_file_atomically(path, tokenizer_json_text(trained));
  return report;
}

}  // namespace caravan
