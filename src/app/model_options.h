// The options eval and generate share: which checkpoint, which tokenizer, which dtype.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>

#include "caravan/train/run_inputs.h"

namespace caravan::app {

struct ModelOptions {
  std::string checkpoint;
  std::optional<std::string> tokenizer;
  std::string dtype = "float32";
  std::optional<double> rope_scaling_factor;
  std::optional<std::int64_t> threads;
};

void add_model_options(CLI::App& command, ModelOptions& options);

/// A checkpoint opened and checked; weights are not read yet.
struct OpenedModel {
  ModelSource source;
  TextTools text;
  DType dtype = DType::kFloat32;
};
OpenedModel open(const ModelOptions& options);

/// These commands work on one rank; ConfigError with the remedy otherwise.
void require_one_rank(const char* command);

}  // namespace caravan::app
