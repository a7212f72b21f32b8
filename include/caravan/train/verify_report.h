// What a verification found, for people and as an HDF5 file (results/README.md has the schema).
#pragma once

#include <string>

#include "caravan/train/verifier.h"

namespace caravan {

/// The root attributes of the file.
struct VerifyAttributes {
  std::int64_t ranks = 1;
  std::string mesh;  // "dp_shard 2, tp 2"
  std::string dtype;
  std::string config;  // the effective configuration, YAML
  std::string commit, versions, hosts, start_time, end_time;
};

/// Name of the file in an output folder.
inline constexpr const char* kVerifyFileName = "verify.h5";

/// A table: of every kind of tensor (layers.*.attention.wq.weight) the layer that lies furthest off in units
/// of its tolerance, every step, and the result in the last line.
std::string describe(const Verification& result, const VerifyAttributes& attributes);

/// "layers.0.attention differs from the one-rank model: ...", for the tensor named first_difference().
std::string describe(const Difference& difference);

/// The file with every tensor of every layer, written whole or not at all; its folder exists. Throws IoError.
void write_verification(const std::string& path, const Verification& result,
                        const VerifyAttributes& attributes);

}  // namespace caravan
