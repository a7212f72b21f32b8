// A trained model as a checkpoint folder, and the tensors of a run's state as one safetensors file.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "caravan/io/run_record.h"
#include "caravan/io/tensor_source.h"
#include "caravan/model/parameter.h"
#include "caravan/train/run_inputs.h"

namespace caravan {

/// `folder` in Meta's layout with params.json, the tokenizer's file and caravan.json; appears complete or not
/// at all, replacing an older one. `parameters` is the whole model, in host memory.
void save_model(const std::string& folder, const ModelConfig& config, const ParameterSet& parameters,
                const std::optional<TokenizerFile>& tokenizer, const RunRecord& record);
/// The same from sources of all tensors.
void save_model(const std::string& folder, const ModelConfig& config,
                const std::vector<TensorSource>& sources, const std::optional<TokenizerFile>& tokenizer,
                const RunRecord& record);

/// A tensor source over a contiguous host view that outlives it.
TensorSource source_of(std::string name, const TensorView& view);

}  // namespace caravan
