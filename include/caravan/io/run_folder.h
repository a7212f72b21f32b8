// The output folder: it holds one run. Nothing here touches a file that a run does not write.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "caravan/io/run_record.h"

namespace caravan {

/// Checkpoints lie in this folder of the output folder.
inline constexpr const char* kCheckpointsFolder = "checkpoints";

/// What to do with results that are already there.
enum class ExistingRun : std::uint8_t { kRefuse, kOverwrite, kResume };

/// True when the folder holds results.h5, a round log or a checkpoint of a run.
bool holds_results(const std::string& folder);

/// Changes nothing (a dry run calls it too). Throws ConfigError when the folder holds results and `existing`
/// is kRefuse, IoError when it is no folder or cannot be created or written.
void check_run_folder(const std::string& folder, ExistingRun existing);

/// check_run_folder, then creates the folder with its parents, tries a write, and with kOverwrite removes the
/// files of the earlier run: results.h5, eval_res_llama32_ws*_r*.txt, and in checkpoints/*_ws*_lr*_round* the
/// files of a checkpoint. A checkpoint folder with other files in it keeps those. Symbolic links are not
/// followed. What a killed run left half written (temporary files and folders) is removed in any case. Call
/// after everything else about the run has been validated; one process only.
void prepare_run_folder(const std::string& folder, ExistingRun existing);

struct FoundCheckpoint {
  std::string folder;
  RunRecord record;
};

/// The complete checkpoint of the run with the most finished rounds (steps in synchronous mode); nullopt when
/// there is none. Throws IoError when a caravan.json among them cannot be read.
std::optional<FoundCheckpoint> latest_checkpoint(const std::string& folder);

/// Bytes an ordinary user may still write at `path`, or at its nearest existing parent. Throws IoError.
std::uint64_t free_bytes(const std::string& path);

/// Throws IoError when fewer than `needed` bytes are free for `what` ("a checkpoint of 12.8 GB").
void require_free_bytes(const std::string& path, std::uint64_t needed, const std::string& what);

}  // namespace caravan
