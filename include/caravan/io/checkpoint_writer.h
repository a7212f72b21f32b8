// Writes model weights as a complete folder in Meta's or Hugging Face's layout. Tensors are streamed; the
// folder appears under its name only when everything in it is on the disk. One process writes, no
// collectives.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "caravan/config/model_config.h"
#include "caravan/io/output_file.h"
#include "caravan/io/tensor_source.h"

namespace caravan {

struct CheckpointWriteOptions {
  IfExists if_exists = IfExists::kFail;
  std::vector<std::string> copied_files;  // paths, copied unchanged under their own names (tokenizers)
  /// Called before the folder gets its name, to write more files into it: write_run_record(folder, record).
  std::function<void(const std::string& folder)> add_files;
  std::int64_t shard_limit_bytes = 5'000'000'000;  // Hugging Face layout: bytes of tensors per file
};

/// consolidated.00.pth and params.json in `folder`. `sources` are the model's parameters by Meta's names
/// (those of expected_tensors(config), any floating dtype, any order); a tied output is written as a view of
/// the embedding. IoError with path and reason when the folder exists, the disk is full, ...; nothing is left
/// behind then. InternalError when names or shapes are not the model's.
void write_meta_checkpoint(const std::string& folder, const ModelConfig& config,
                           const std::vector<TensorSource>& sources,
                           const CheckpointWriteOptions& options = {});

/// The same in several files consolidated.NN.pth, one per element of `parts`: what meta_part
/// (io/meta_parts.h) gives each file of every parameter.
void write_meta_parts(const std::string& folder, const ModelConfig& config,
                      const std::vector<std::vector<TensorSource>>& parts,
                      const CheckpointWriteOptions& options = {});

/// config.json and model.safetensors (or numbered shards and their index) with Hugging Face's names and its
/// row order in wq and wk; a tied output is left out. Otherwise as write_meta_checkpoint.
void write_hf_checkpoint(const std::string& folder, const ModelConfig& config,
                         const std::vector<TensorSource>& sources,
                         const CheckpointWriteOptions& options = {});

}  // namespace caravan
