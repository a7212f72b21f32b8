#include "caravan/train/run_inputs.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "caravan/core/error.h"
#include "caravan/core/log.h"
#include "caravan/data/path_list.h"
#include "caravan/io/params_json.h"
#include "caravan/optim/adamw.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

ModelConfig shape_of(const ModelSection& section, const Tokenizer* tokenizer, std::string& description) {
  ModelConfig config;
  if (section.preset) {
    config = *model_preset(*section.preset);
    description = fmt::format("preset {}, random weights", *section.preset);
    if (!section.vocab_size && tokenizer != nullptr) {
      config.vocab_size = tokenizer->vocab_size();
    }
    if (section.rope_scaling_factor) {
      if (!config.rope_scaling) {
        fail<ConfigError>(
            "model.rope_scaling_factor is {}, but preset {} has no frequency scaling; leave it out",
            *section.rope_scaling_factor, *section.preset);
      }
      config.rope_scaling->factor = *section.rope_scaling_factor;
    }
  } else {
    config = read_model_config(*section.config, section.rope_scaling_factor);
    description = fmt::format("shape of {}, random weights", *section.config);
    if (config.vocab_size <= 0 && tokenizer != nullptr) {
      config.vocab_size = tokenizer->vocab_size();
    }
  }
  if (section.vocab_size) {
    config.vocab_size = *section.vocab_size;
  }
  if (section.tie_embeddings != Tie::kAuto) {
    config.tie_embeddings = section.tie_embeddings == Tie::kTied;
  }
  return config;
}

/// A pattern that matches nothing is a spelling mistake, and the decay would silently go on.
void check_no_decay(const OptimizerSection& optimizer, const ModelConfig& model) {
  for (const std::string& pattern : optimizer.no_decay) {
    const auto shapes = parameter_shapes(model);
    if (std::none_of(shapes.begin(), shapes.end(), [&](const ParameterShape& parameter) {
          return matches_pattern(pattern, parameter.name);
        })) {
      fail<ConfigError>(
          "optimizer.no_decay: '{}' matches no parameter; names are like {} and {}, patterns like *norm*",
          pattern, shapes.front().name, shapes.at(1).name);
    }
  }
}

[[noreturn]] void fail_no_tokenizer(const Dataset& dataset) {
  fail<ConfigError>(
      "{}: this sample is text, and no tokenizer is given; set tokenizer: to a tokenizer.model or "
      "tokenizer.json, or give rows with ids",
      dataset.first_text_sample());
}

}  // namespace

ModelSource open_model(const ModelSection& section, const Tokenizer* tokenizer) {
  ModelSource source;
  if (section.checkpoint) {
    source.files = open_checkpoint(*section.checkpoint, section.rope_scaling_factor, section.tie_embeddings);
    source.config = source.files->config();
    source.description =
        fmt::format("{} ({} layout)", *section.checkpoint,
                    source.files->layout() == CheckpointLayout::kMeta ? "Meta" : "Hugging Face");
    if (source.config.vocab_size <= 0 && tokenizer != nullptr) {
      source.config.vocab_size = tokenizer->vocab_size();
    }
  } else {
    source.config = shape_of(section, tokenizer, source.description);
  }
  if (const auto problems = find_problems(source.config); !problems.empty()) {
    fail<ConfigError>("{}: this model cannot be built: {}", source.description, fmt::join(problems, "; "));
  }
  if (source.files) {
    check_tensors(*source.files, expected_tensors(source.config, DType::kFloat32));
  }
  if (tokenizer != nullptr && tokenizer->vocab_size() > source.config.vocab_size) {
    fail<ConfigError>(
        "the tokenizer {} has {} tokens, the model ({}) only {}; use the tokenizer that belongs to "
        "the model",
        tokenizer->path(), tokenizer->vocab_size(), source.description, source.config.vocab_size);
  }
  return source;
}

void load_parameters(const ModelSource& source, std::uint64_t seed, const Context& ctx,
                     ParameterSet& parameters) {
  if (!source.files) {
    initialise(ctx, parameters, seed);
    return;
  }
  for (Parameter& parameter : parameters.all()) {
    source.files->read(parameter.name(), parameter.region(), parameter.stored_value());
  }
}

std::optional<Tokenizer> open_tokenizer(const std::optional<std::string>& path,
                                        const std::optional<std::string>& checkpoint) {
  if (path) {
    return Tokenizer::load(*path);
  }
  if (checkpoint) {
    for (const char* name : {"tokenizer.json", "tokenizer.model"}) {
      if (const fs::path file = fs::path(*checkpoint) / name; fs::exists(file)) {
        return Tokenizer::load(file.string());
      }
    }
  }
  return std::nullopt;
}

TokenizerFile read_tokenizer_file(const Tokenizer& tokenizer) {
  std::ifstream file(tokenizer.path(), std::ios::binary);
  TokenizerFile result;
  result.bytes.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  if (!file || result.bytes.empty()) {
    fail<IoError>("{}: cannot be read", tokenizer.path());
  }
  const auto first = result.bytes.find_first_not_of(" \t\r\n");
  result.name =
      first != std::string::npos && result.bytes[first] == '{' ? "tokenizer.json" : "tokenizer.model";
  return result;
}

Dataset open_dataset(const std::vector<std::string>& patterns, std::int64_t vocab_size, bool has_tokenizer) {
  Dataset dataset(patterns, {.vocab_size = vocab_size});
  if (dataset.text_samples() > 0 && !has_tokenizer) {
    fail_no_tokenizer(dataset);
  }
  return dataset;
}

std::int32_t resolve_pad_id(std::optional<std::int64_t> given, const Tokenizer* tokenizer,
                            std::int64_t vocab_size) {
  constexpr std::int64_t kLlama31Pad = 128004;
  std::int64_t id = 0;
  if (given) {
    id = *given;
  } else if (tokenizer != nullptr) {
    id = tokenizer->default_pad_id();
  } else if (vocab_size > kLlama31Pad) {
    id = kLlama31Pad;
  }
  if (id < 0 || id >= vocab_size) {
    fail<ConfigError>("data.pad_id is {}, outside the model's vocabulary of {}; give an id below it, or null",
                      id, vocab_size);
  }
  return static_cast<std::int32_t>(id);
}

std::string RunInputs::dataset_name() const {
  if (config.data.name) {
    return *config.data.name;
  }
  fs::path name = fs::path(config.data.train.front()).filename();
  if (name.extension() == ".gz") {
    name = name.stem();
  }
  return name.stem().string();
}

LoaderOptions RunInputs::train_options(std::int64_t batch_size) const {
  return {.batch_size = batch_size,
          .max_seq_len = config.data.max_seq_len,
          .shuffle = config.data.shuffle,
          .shuffle_buffer = config.data.shuffle_buffer,
          .seed = static_cast<std::uint64_t>(config.seed),
          .pack = config.data.pack,
          .pad_id = pad_id};
}

LoaderOptions RunInputs::eval_options(std::int64_t batch_size) const {
  LoaderOptions options = train_options(batch_size);
  options.shuffle = false;
  options.pack = false;
  return options;
}

RunInputs open_inputs(const RunConfig& config, DataUse use) {
  RunInputs inputs;
  inputs.config = config;
  inputs.tokenizer = open_tokenizer(config.tokenizer, config.model.checkpoint);
  const Tokenizer* tokenizer = inputs.tokenizer ? &*inputs.tokenizer : nullptr;
  inputs.model = open_model(config.model, tokenizer);
  inputs.pad_id = resolve_pad_id(config.data.pad_id, tokenizer, inputs.model.config.vocab_size);
  check_no_decay(config.optimizer, inputs.model.config);
  if (log::is_speaking() && config.data.max_seq_len - 1 > inputs.model.config.max_position) {
    log::warning("data.max_seq_len is {}, beyond the {} positions the model was made for",
                 config.data.max_seq_len, inputs.model.config.max_position);
  }
  if (tokenizer != nullptr) {
    inputs.tokenizer_file = read_tokenizer_file(*tokenizer);
    inputs.encoder = std::make_unique<DocumentEncoder>(*inputs.tokenizer);
  }
  const bool has_eval = !config.data.eval.empty();
  if (use == DataUse::kCheckPaths) {
    expand_paths(config.data.train);
    if (has_eval) {
      expand_paths(config.data.eval);
    }
    return inputs;
  }
  inputs.train = open_dataset(config.data.train, inputs.model.config.vocab_size, tokenizer != nullptr);
  if (has_eval) {
    inputs.eval = open_dataset(config.data.eval, inputs.model.config.vocab_size, tokenizer != nullptr);
  }
  return inputs;
}

}  // namespace caravan
