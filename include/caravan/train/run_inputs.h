// Everything a run reads, opened and checked before anything is allocated or written: weights, tokenizer,
// data.
#pragma once

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

/// Fills the local region of every parameter from files, or from the seed.
void load_parameters(const ModelSource& source, std::uint64_t seed, const Context& ctx,
                     ParameterSet& parameters);

/// The tokenizer file of a run: config.tokenizer, else one that lies in the checkpoint's folder.
std::optional<Tokenizer> open_tokenizer(const std::optional<std::string>& path,
                                        const std::optional<std::string>& checkpoint);

/// A tokenizer's file as it goes into checkpoints: held since the start, so that moving it does not cost the
/// model.
struct TokenizerFile {
  std::string name;  // tokenizer.json or tokenizer.model, by its content: where open_tokenizer finds it
  std::string bytes;
};
TokenizerFile read_tokenizer_file(const Tokenizer& tokenizer);

enum class DataUse : std::uint8_t { kOpen, kCheckPaths };

struct RunInputs {
  RunConfig config;
  ModelSource model;
  std::optional<Tokenizer> tokenizer;
  std::optional<TokenizerFile> tokenizer_file;
  std::unique_ptr<DocumentEncoder> encoder;  // null without a tokenizer
  std::optional<Dataset> train;              // absent with kCheckPaths
  std::optional<Dataset> eval;               // also absent in synchronous mode without data.eval
  std::int32_t pad_id = 0;

  /// data.name, else the stem of the first training path.
  std::string dataset_name() const;
  LoaderOptions train_options(std::int64_t batch_size) const;
  LoaderOptions eval_options(std::int64_t batch_size) const;
};

/// Throws ConfigError or IoError that says what, where and what to do. Reads data files once when `use` is
/// kOpen.
RunInputs open_inputs(const RunConfig& config, DataUse use);

/// Opens one data set with the checks of open_inputs: ids below the vocabulary, a tokenizer where there is
/// text.
Dataset open_dataset(const std::vector<std::string>& patterns, std::int64_t vocab_size, bool has_tokenizer);

/// `given`, else the tokenizer's padding token, else 128004 for Llama's vocabulary, else 0. ConfigError when
/// it is not below `vocab_size`.
std::int32_t resolve_pad_id(std::optional<std::int64_t> given, const Tokenizer* tokenizer,
                            std::int64_t vocab_size);

}  // namespace caravan
