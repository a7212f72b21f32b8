// The options eval and generate share: which checkpoint, which tokenizer, which dtype.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>

#include "caravan/train/inference_layout.h"
#include "caravan/train/run_inputs.h"

namespace caravan::app {

struct ModelOptions {
  std::string checkpoint;
  std::optional<std::string> tokenizer;
  std::string device_name = "auto";
  std::string dtype = "float32";
  std::optional<double> rope_scaling_factor;
  std::optional<std::int64_t> threads;
  std::int64_t pp = 1;
  double timeout_seconds = kCommTimeoutSeconds;

  DeviceChoice device() const;
};

void add_model_options(CLI::App& command, ModelOptions& options);

/// A checkpoint opened and checked; weights are not read yet.
struct OpenedModel {
  ModelSource source;
  TextTools text;
  DType dtype = DType::kFloat32;
};
OpenedModel open(const ModelOptions& options);

/// The ranks that hold the model together: all that were started, or this one alone.
InferenceRanks model_ranks(const ModelOptions& options);

}  // namespace caravan::app
