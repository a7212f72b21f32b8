// The folder where a run's training checkpoints lie, `<output.dir>/checkpoints/step_<N>/`: which there are,
// which of them can be used, and which may go. One process at a time changes it (rank 0).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "caravan/io/sharded_checkpoint_reader.h"

namespace caravan {

/// "step_00000100"; more digits from 100 million steps on.
std::string step_folder_name(std::int64_t step);
/// The step of such a name; null for any other.
std::optional<std::int64_t> step_of_folder_name(const std::string& name);

struct StepFolder {
  std::string path;
  std::int64_t step = 0;
};

/// The folders `step_<N>` in `folder` that have a manifest, newest first; nothing of them has been checked.
/// None when `folder` does not exist. Symbolic links are not followed.
std::vector<StepFolder> step_folders(const std::string& folder);

/// Reads the manifest and compares it with the folder's name. IoError with the reason.
std::unique_ptr<ShardedCheckpointReader> open_step_folder(const StepFolder& step);

struct LatestCheckpoint {
  std::unique_ptr<ShardedCheckpointReader> reader;  // null when there is none
  std::vector<std::string> refused;                 // newer ones, newest first: why each cannot be used
};

/// The newest checkpoint in `folder` that is complete and intact; reads every byte of those it looks at. For
/// one process; train/checkpointing.h has the collective way, which divides the reading.
LatestCheckpoint find_latest(const std::string& folder);

/// Removes checkpoints until `keep` (at least 1) are left: first those behind step `newest`, which was just
/// written (they belong to a future that did not happen), then the oldest. `newest` itself always stays. A
/// removal that fails is a warning, since the run can go on.
void keep_newest(const std::string& folder, std::int64_t keep, std::int64_t newest);

/// Renames the checkpoints behind step `newest` to `step_<N>.refused` (`.refused-2`, ... where that is
/// taken): nothing here looks at or removes them from then on, and a person who knows better can still use
/// them. Says so in a warning each; IoError when one cannot be renamed.
void set_aside_later(const std::string& folder, std::int64_t newest);

/// Removes what killed writes and removals left: folders `step_<N>.tmp-...`, and `step_<N>` without a
/// manifest. A folder moved aside by a replacement that did not finish gets its name back. Call when nothing
/// is being written.
void sweep_checkpoints(const std::string& folder);

}  // namespace caravan
