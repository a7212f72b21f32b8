// Everything a run reads, opened and checked before anything is allocated or written: weights, tokenizer,
// data.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "caravan/config/run_config.h"
#include "caravan/data/batch_loader.h"
#include "caravan/data/document_encoder.h"
#include "caravan/io/checkpoint_reader.h"
#include "caravan/model/parameter.h"

namespace caravan {

/// The weights a run starts from: files, or a shape filled from the seed.
struct ModelSource {
  ModelConfig config;
  std::unique_ptr<CheckpointReader> files;  // null: random
  std::string description;  // for the plan: "DIR (Meta layout)" or "preset tiny, random weights"
};

/// Opens `section`'s checkpoint and checks every tensor's name and shape, or resolves its preset or shape
/// file. `tokenizer` gives the vocabulary where the section leaves it open; may be null.
ModelSource open_model(const ModelSection& section, const Tokenizer* tokenizer);

/// Fills every shard from files, or from the seed.
void load_parameters(const ModelSource& source, std::uint64_t seed, const Context& ctx,
                     const std::vector<ParameterShard>& shards);

/// A tokenizer's file as it goes into checkpoints: held since the start, so that moving it does not cost the
/// model.
struct TokenizerFile {
  std::string name;  // tokenizer.json or tokenizer.model, by its content: where open_tokenizer finds it
  std::string bytes;
};

/// A tokenizer and what it takes to use it on data.
struct TextTools {
  std::optional<Tokenizer> tokenizer;
  std::optional<TokenizerFile> file;         // also of a tokenizer that cannot be used
  std::unique_ptr<DocumentEncoder> encoder;  // null: text cannot be encoded
  std::string why_not;                       // then the reason; empty when no tokenizer was given

  const Tokenizer* tokenizer_or_null() const { return tokenizer ? &*tokenizer : nullptr; }
};

/// The tokenizer at `path`, else the one in the checkpoint's folder. Throws IoError when `path` is given and
/// is no tokenizer. One that only lies in the checkpoint's folder, and one without begin or end token, does
/// no harm until there is text: see `why_not`.
TextTools open_text_tools(const std::optional<std::string>& path,
                          const std::optional<std::string>& checkpoint);

enum class DataUse : std::uint8_t { kOpen, kCheckPaths };

struct RunInputs {
  RunConfig config;
  ModelSource model;
  std::optional<TokenizerFile> tokenizer_file;
  std::unique_ptr<DocumentEncoder> encoder;  // null without a tokenizer; then all samples are ids
  std::optional<Dataset> train;              // absent with kCheckPaths
  std::optional<Dataset> eval;               // also absent in synchronous mode without data.eval
  std::int32_t pad_id = 0;

  /// data.name, else the stem of the first training file.
  std::string dataset_name() const;
  LoaderOptions train_options(std::int64_t batch_size) const;
  LoaderOptions eval_options(std::int64_t batch_size) const;
};

/// Throws ConfigError or IoError that says what, where and what to do, for everything at once that can be
/// found apart: tokenizer, model, training data, held-out data. `check_model` looks at the model's shape for
/// whoever knows how it will be divided; what it throws is reported with the rest. Reads data files once when
/// `use` is kOpen.
RunInputs open_inputs(const RunConfig& config, DataUse use,
                      const std::function<void(const ModelConfig&)>& check_model = {});

/// Opens one data set with the checks of open_inputs: ids below the vocabulary, a tokenizer where there is
/// text.
Dataset open_dataset(const std::vector<std::string>& patterns, std::int64_t vocab_size,
                     const TextTools& text);

/// `given`, else the padding token of a tokenizer that encodes, else that of Llama 3's vocabulary (128004, of
/// Llama 3.0 the end of text), else 0. ConfigError when it is not below the model's vocabulary.
std::int32_t resolve_pad_id(std::optional<std::int64_t> given, const TextTools& text,
                            const ModelConfig& model);

}  // namespace caravan
