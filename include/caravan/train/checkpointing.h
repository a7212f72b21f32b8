// Saving and finding training checkpoints with all ranks together. Files and formats are those of
// io/sharded_checkpoint_writer.h and io/sharded_checkpoint_reader.h, which know nothing of ranks.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "caravan/comm/communicator.h"
#include "caravan/config/run_config.h"
#include "caravan/io/sharded_checkpoint_reader.h"
#include "caravan/io/sharded_checkpoint_writer.h"

namespace caravan {

/// Writes `<folder>/step_<N>/`, all ranks at once, each the regions it owns. A failure on any rank is the
/// same IoError on every rank; the checkpoints written before are untouched then, and nothing of the new one
/// is left. `folder` must be on a file system that all ranks see.
class Checkpointing {
 public:
  /// `folder`: the run's kCheckpointsFolder. `world` must outlive this.
  Checkpointing(std::string folder, const CheckpointSection& options, Communicator& world);
  /// Waits for a write in the background and drops it: finish() is what completes one.
  ~Checkpointing();
  Checkpointing(const Checkpointing&) = delete;
  Checkpointing& operator=(const Checkpointing&) = delete;
  Checkpointing(Checkpointing&&) = delete;
  Checkpointing& operator=(Checkpointing&&) = delete;

  /// Saves one checkpoint; rank 0's `state` counts. With checkpoint.async it returns as soon as the contents
  /// are copied to memory of its own (as many bytes as this rank writes), else when the checkpoint is
  /// complete. A write still in the background is completed first. Collective.
  void save(const TrainingState& state, std::vector<ShardSource> sources);
  /// Completes a write in the background if all ranks are done with their parts. Call after every step; costs
  /// nothing while nothing is in flight, else one small reduction. Errors of the background surface here.
  /// Collective.
  void poll();
  /// Waits for a write in the background and completes it. Collective.
  void finish();
  /// The folder of the newest checkpoint that this object completed; empty before the first.
  const std::string& last_saved() const { return last_saved_; }

 private:
  struct InFlight;

  void complete();
  void give_up(std::unique_ptr<InFlight> flight);
  std::string path_of(std::int64_t step) const;

  std::string folder_;
  std::int64_t keep_;
  bool is_async_;
  Communicator& world_;
  std::unique_ptr<InFlight> in_flight_;
  std::string last_saved_;
};

/// The newest checkpoint in `folder` that is complete and intact on rank 0's file system and on every
/// other's; the ranks divide the reading of all its bytes. Newer ones that cannot be used are named in a
/// warning each. Null when there is none. Collective; writes nothing.
std::unique_ptr<ShardedCheckpointReader> find_latest_checkpoint(const std::string& folder,
                                                                Communicator& world);

/// The checkpoint in `path`, every byte checked by the ranks together; any defect is the same IoError on
/// every rank. Collective.
std::unique_ptr<ShardedCheckpointReader> open_checked_checkpoint(const std::string& path,
                                                                 Communicator& world);

}  // namespace caravan
