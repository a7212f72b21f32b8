// The options eval and generate share: which checkpoint, which tokenizer, which dtype.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>

#include "caravan/train/inference_model.h"
#include "caravan/train/run_inputs.h"
#include "compute_device.h"

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

/// require_device_memory for a model with this room; `smaller` says what makes the room smaller, like "lower
/// --batch-size". Collective; nothing on CPUs.
void require_model_memory(const ComputeDevice& device, const OpenedModel& opened,
                          const InferenceModel::Room& room, const InferenceRanks& ranks,
                          const std::string& smaller);

}  // namespace caravan::app
