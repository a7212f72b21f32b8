// Continuing a prompt token by token: greedy or sampled, with or without a K/V cache.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "caravan/train/inference_model.h"

namespace caravan {

struct SamplingOptions {
  double temperature = 0.0;  // 0: greedy
  std::int64_t top_k = 0;    // 0: all tokens
  double top_p = 1.0;        // smallest set of most likely tokens with at least this probability
  std::uint64_t seed = 0;
};

/// The next token from its logits: argmax (the lowest id of equals) when greedy, else a draw for place
/// `index`, a pure function of (logits, options, index).
std::int32_t choose_token(std::span<const double> logits, const SamplingOptions& options,
                          std::uint64_t index);

class Generator {
 public:
  using Load = std::function<void(const Context&, ParameterSet&)>;
  /// Room for rows of `max_tokens` tokens, prompt included. `load` fills the parameters. Without the cache
  /// every token runs the whole row again: slower, same tokens. All `ranks` hold the model together, each the
  /// keys and values of its layers' and its own heads; every call is collective over them and gives the same
  /// on each.
  Generator(const ModelConfig& config, DType dtype, Backend& backend, std::int64_t max_tokens, KvCache cache,
            const Load& load, const InferenceRanks& ranks);

  /// Logits after each of the calls' tokens: feeds `ids` (the whole row without cache, its continuation with
  /// it) and returns the last token's logits. `begin` is the place of ids[0] in the row.
  std::vector<double> next_logits(std::span<const std::int32_t> ids, std::int64_t begin);

  /// Continues `prompt` (at least one token) by at most `count` tokens; stops after one of `stop_ids` without
  /// giving it out, or when the row is full. `on_token` sees each token as it comes and may return false to
  /// stop, on every rank alike. One rank chooses; the others are told.
  std::vector<std::int32_t> generate(std::span<const std::int32_t> prompt, std::int64_t count,
                                     std::span<const std::int32_t> stop_ids, const SamplingOptions& sampling,
                                     const std::function<bool(std::int32_t)>& on_token);

 private:
  std::vector<double> logits_in_last_stage(std::span<const std::int32_t> ids, std::int64_t begin);

  InferenceModel model_;
  KvCache cache_;
  std::int64_t max_tokens_;
};

}  // namespace caravan
