// From the tensors of weight files to the parameters of one model under Meta's names.
#pragma once

#include <string>
#include <vector>

#include "caravan/config/model_config.h"
#include "caravan/io/stored_tensor.h"
#include "merged_tensor.h"

namespace caravan {

/// The model that `paths` (consolidated.NN.pth, sorted) hold parts of. One IoError lists every tensor that is
/// not in all files, or whose parts do not fit together.
std::vector<MergedTensor> merge_meta_files(const std::vector<std::string>& paths, const ModelConfig& config);

/// The tensors of Hugging Face files under Meta's names. One IoError lists every tensor that has a Meta name
/// there (its row order would be a guess) or more dims than Caravan handles.
std::vector<MergedTensor> rename_hf_tensors(std::vector<StoredTensor> stored, const ModelConfig& config,
                                            const std::string& folder);

}  // namespace caravan
