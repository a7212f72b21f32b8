// The text file with one line per round, and the names of a run's files.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "caravan/io/results_file.h"

namespace caravan {

/// "eval_res_llama32_ws4_r5.txt"
std::string round_log_name(std::int64_t world_size, std::int64_t rounds);

/// "<name>_ws<world_size>_lr<lr>_round<round>". The learning rate is written with the fewest digits that read
/// back as the same number: 1e-05, 0.0005, 1 (where Python's repr has 1.0). Throws ConfigError when `name` is
/// empty or holds a '/'.
std::string checkpoint_folder_name(const std::string& name, std::int64_t world_size, double lr,
                                   std::int64_t round);

/// Lines "round 0 loss 2.5 perplexity 12.18", numbers with all their digits. Written by one process.
class RoundLog {
 public:
  /// Starts the file with the lines of `history`, whatever it held before (a killed run may leave half a
  /// line): empty for a new run, the kept rows of the results file for a resumed one. Throws IoError.
  RoundLog(const std::string& path, std::span<const HistoryRecord> history);
  ~RoundLog();
  RoundLog(const RoundLog&) = delete;
  RoundLog& operator=(const RoundLog&) = delete;
  /// Appends a line, on the disk when the call returns. Throws IoError.
  void append(const HistoryRecord& record);

 private:
  std::string path_;
  int descriptor_ = -1;
};

}  // namespace caravan
