// caravan.json: what a checkpoint of a run belongs to. Lies beside the weights.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "caravan/io/experiment_key.h"

namespace caravan {

inline constexpr const char* kRunRecordName = "caravan.json";

struct RunRecord {
  ExperimentKey experiment;
  std::string mode;                   // "federated" or "synchronous"
  std::optional<std::int64_t> round;  // exactly one of round and step: finished rounds, 0 before the first
  std::optional<std::int64_t> step;   // finished steps
  std::vector<std::int64_t> slots;    // slots[rank] in the round just finished; empty in synchronous mode
  std::int64_t step_records = 0;  // rows of /steps in results.h5 at this point: where a resumed run goes on
  std::string config;             // the effective configuration, YAML
  std::string commit;

  friend bool operator==(const RunRecord&, const RunRecord&) = default;
};

/// The content of caravan.json. Throws InternalError when it would not be read back (see read_run_record).
std::string run_record_text(const RunRecord& record);

/// Writes `<folder>/caravan.json` atomically. Throws IoError, and as run_record_text does.
void write_run_record(const std::string& folder, const RunRecord& record);

/// Reads `<folder>/caravan.json`. Throws IoError when it is missing, is not JSON, has another format version,
/// a missing or unknown key, a value of the wrong type or out of range, or slots that are not a permutation
/// of 0 ... world_size - 1.
RunRecord read_run_record(const std::string& folder);

/// True when `folder` holds a caravan.json.
bool has_run_record(const std::string& folder);

}  // namespace caravan
