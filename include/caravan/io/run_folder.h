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

/// Creates the folder with its parents. Throws IoError.
void create_run_folder(const std::string& folder);

/// check_run_folder, then creates the folder with its parents, tries a write, and with kOverwrite removes the
/// files of the earlier run: results.h5, eval_res_llama32_ws*_r*.txt, and in checkpoints/*_ws*_lr*_round* and
/// checkpoints/step_* the files of a checkpoint. A checkpoint folder with other files in it keeps those.
/// Symbolic links are not followed. What a killed run left half written or half removed (temporary files and
/// folders, the state of a round without its checkpoint) is removed in any case. Call after everything else
/// about the run has been validated; one process only.
void prepare_run_folder(const std::string& folder, ExistingRun existing);

struct FoundCheckpoint {
  std::string folder;
  RunRecord record;
};

/// The complete checkpoint of the run with the most finished rounds (steps in synchronous mode); nullopt when
/// there is none. Throws IoError when a caravan.json among them cannot be read.
std::optional<FoundCheckpoint> latest_checkpoint(const std::string& folder);

/// The folder beside a checkpoint's that holds what else outlives a round: "<checkpoint>.state".
std::string round_state_folder(const std::string& checkpoint_folder);

/// Removes a checkpoint of the run and the state beside it. A process killed on the way leaves a temporary
/// folder, which the next prepare_run_folder removes; it never leaves half a checkpoint. Throws IoError.
void remove_run_checkpoint(const std::string& checkpoint_folder);

/// Removes the run's other models of the same step: a run that went on with another number of ranks or
/// another learning rate writes its model under another name. Called when `checkpoint_folder` is complete.
/// Throws IoError.
void remove_renamed_checkpoints(const std::string& checkpoint_folder);

/// Bytes of the files that prepare_run_folder with kOverwrite removes.
std::uint64_t earlier_results_bytes(const std::string& folder);

/// Bytes an ordinary user may still write at `path`, or at its nearest existing parent; the largest number
/// where the file system does not say. Throws IoError.
std::uint64_t free_bytes(const std::string& path);

}  // namespace caravan
