// The model in a training checkpoint, for whatever reads models: eval, generate, convert, model.checkpoint.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "caravan/io/checkpoint_reader.h"

namespace caravan {

/// The key in TrainingState::extra under which the shape of the model stands, as params.json has it.
inline constexpr const char* kTrainingModelKey = "params.json";

/// The parameters of the training checkpoint `folder` (has_manifest()), without its optimizer. What is read
/// is compared with its checksums. IoError for a damaged checkpoint and for one that does not say its model.
std::unique_ptr<CheckpointReader> open_training_model(const std::string& folder,
                                                      std::optional<double> rope_scaling_factor, Tie tie);

}  // namespace caravan
