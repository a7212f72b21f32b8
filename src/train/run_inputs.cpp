#include "caravan/train/run_inputs.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>

#include "caravan/backend/device_memory.h"
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

const char* layout_name(CheckpointLayout layout) {
  switch (layout) {
    case CheckpointLayout::kMeta:
      return "Meta layout";
    case CheckpointLayout::kHuggingFace:
      return "Hugging Face layout";
    case CheckpointLayout::kTraining:
      return "training checkpoint";
  }
  fail<InternalError>("checkpoint layout {}", static_cast<int>(layout));
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

[[noreturn]] void fail_no_tokenizer(const Dataset& dataset, const TextTools& text) {
  if (!text.why_not.empty()) {
    fail<ConfigError>("{}: this sample is text, and the tokenizer cannot be used: {}",
                      dataset.first_text_sample(), text.why_not);
  }
  fail<ConfigError>(
      "{}: this sample is text, and no tokenizer is given; set tokenizer: to a tokenizer.model or "
      "tokenizer.json, or give rows with ids",
      dataset.first_text_sample());
}

std::optional<std::string> tokenizer_in(const std::optional<std::string>& folder) {
  for (const char* name : {"tokenizer.json", "tokenizer.model"}) {
    if (folder && fs::exists(fs::path(*folder) / name)) {
      return (fs::path(*folder) / name).string();
    }
  }
  return std::nullopt;
}

TokenizerFile read_tokenizer_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  TokenizerFile result;
  result.bytes.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  if (!file || result.bytes.empty()) {
    fail<IoError>("{}: cannot be read", path);
  }
  const auto first = result.bytes.find_first_not_of(" \t\r\n");
  result.name =
      first != std::string::npos && result.bytes[first] == '{' ? "tokenizer.json" : "tokenizer.model";
  return result;
}

/// What is wrong with a run's inputs, collected so that all of it is said at once.
class InputProblems {
 public:
  /// False when `work` found the input wrong.
  bool collect(const std::function<void()>& work) {
    try {
      work();
      return true;
    } catch (const ConfigError& error) {
      messages_.emplace_back(error.what());
    } catch (const IoError& error) {
      messages_.emplace_back(error.what());
      is_configuration_ = false;
    }
    return false;
  }
  void throw_if_any() const {
    if (messages_.empty()) {
      return;
    }
    const std::string message = messages_.size() == 1
                                    ? messages_.front()
                                    : fmt::format("the run's inputs have {} problems:\n  {}",
                                                  messages_.size(), fmt::join(messages_, "\n  "));
    if (is_configuration_) {
      throw ConfigError(message);
    }
    throw IoError(message);
  }

 private:
  std::vector<std::string> messages_;
  bool is_configuration_ = true;
};

}  // namespace

ModelSource open_model(const ModelSection& section, const Tokenizer* tokenizer) {
  ModelSource source;
  if (section.checkpoint) {
    source.files = open_checkpoint(*section.checkpoint, section.rope_scaling_factor, section.tie_embeddings);
    source.config = source.files->config();
    source.description = fmt::format("{} ({})", *section.checkpoint, layout_name(source.files->layout()));
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
                     const std::vector<ParameterShard>& shards) {
  if (!source.files) {
    initialise(ctx, shards, seed);
    return;
  }
  std::map<std::string, std::size_t> place;
  for (const std::string& name : source.files->reading_order()) {
    place.emplace(name, place.size());
  }
  std::vector<const ParameterShard*> ordered;
  for (const ParameterShard& shard : shards) {
    ordered.push_back(&shard);
  }
  std::stable_sort(ordered.begin(), ordered.end(), [&](const ParameterShard* a, const ParameterShard* b) {
    return place[a->parameter->name()] < place[b->parameter->name()];
  });
  for (const ParameterShard* shard : ordered) {
    HostDraft draft(shard->value);
    source.files->read(shard->parameter->name(), shard->region, draft.view());
    draft.commit();
  }
}

TextTools open_text_tools(const std::optional<std::string>& path,
                          const std::optional<std::string>& checkpoint) {
  TextTools text;
  const std::optional<std::string> beside = path ? std::nullopt : tokenizer_in(checkpoint);
  if (!path && !beside) {
    return text;
  }
  try {
    text.tokenizer = Tokenizer::load(path ? *path : *beside);
  } catch (const Error& error) {
    if (path) {
      throw;
    }
    text.why_not = error.what();
  }
  text.file = read_tokenizer_file(text.tokenizer ? text.tokenizer->path() : *beside);
  if (text.tokenizer) {
    try {
      text.encoder = std::make_unique<DocumentEncoder>(*text.tokenizer);
    } catch (const ConfigError& error) {  // no token begins or ends a text
      text.why_not = error.what();
    }
  }
  return text;
}

Dataset open_dataset(const std::vector<std::string>& patterns, std::int64_t vocab_size,
                     const TextTools& text) {
  Dataset dataset(patterns, {.vocab_size = vocab_size});
  if (dataset.text_samples() > 0 && !text.encoder) {
    fail_no_tokenizer(dataset, text);
  }
  return dataset;
}

std::int32_t resolve_pad_id(std::optional<std::int64_t> given, const TextTools& text,
                            const ModelConfig& model) {
  constexpr std::int64_t kLlama3Vocab = 128256;
  constexpr std::int64_t kLlama31Pad = 128004;
  constexpr std::int64_t kLlama3EndOfText =
      128001;  // 3.0 has no padding token, and no scaled rotary embedding
  std::int64_t id = 0;
  if (given) {
    id = *given;
  } else if (text.encoder) {
    id = text.tokenizer->default_pad_id();
  } else if (model.vocab_size == kLlama3Vocab) {
    id = model.rope_scaling ? kLlama31Pad : kLlama3EndOfText;
  }
  if (id < 0 || id >= model.vocab_size) {
    fail<ConfigError>("data.pad_id is {}, outside the model's vocabulary of {}; give an id below it, or null",
                      id, model.vocab_size);
  }
  return static_cast<std::int32_t>(id);
}

std::string RunInputs::dataset_name() const {
  if (config.data.name) {
    return *config.data.name;
  }
  fs::path name = fs::path(train ? train->files().front().path : config.data.train.front()).filename();
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

RunInputs open_inputs(const RunConfig& config, DataUse use,
                      const std::function<void(const ModelConfig&)>& check_model) {
  RunInputs inputs;
  inputs.config = config;
  TextTools text;
  InputProblems problems;
  const bool has_text_tools =
      problems.collect([&] { text = open_text_tools(config.tokenizer, config.model.checkpoint); });
  const ModelConfig& model = inputs.model.config;
  const bool has_model = problems.collect([&] {
    inputs.model = open_model(config.model, text.tokenizer_or_null());
    inputs.pad_id = resolve_pad_id(config.data.pad_id, text, model);
    check_no_decay(config.optimizer, model);
    if (check_model) {
      check_model(model);
    }
  });
  const auto open = [&](const std::vector<std::string>& patterns, std::optional<Dataset>& dataset) {
    if (use == DataUse::kCheckPaths || !has_text_tools || !has_model) {
      expand_paths(patterns);
    } else {
      dataset = open_dataset(patterns, model.vocab_size, text);
    }
  };
  problems.collect([&] { open(config.data.train, inputs.train); });
  if (!config.data.eval.empty()) {
    problems.collect([&] { open(config.data.eval, inputs.eval); });
  }
  problems.throw_if_any();
  if (log::is_speaking() && config.data.max_seq_len - 1 > model.max_position) {
    log::warning("data.max_seq_len is {}, beyond the {} positions the model was made for",
                 config.data.max_seq_len, model.max_position);
  }
  if (log::is_speaking() && !text.why_not.empty()) {
    log::warning("the tokenizer cannot be used, which does no harm to samples of ids: {}", text.why_not);
  }
  inputs.tokenizer_file = std::move(text.file);
  inputs.encoder = std::move(text.encoder);
  return inputs;
}

}  // namespace caravan
