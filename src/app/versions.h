// Versions of the program and of what it runs on, for --version and for the results of a run.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace caravan::app {

/// (name, version) pairs: caravan, commit, build, compiler, MPI, HDF5, OpenBLAS. Needs no MPI_Init.
std::vector<std::pair<std::string, std::string>> program_versions();
/// The pairs as lines for people.
std::string version_text();

}  // namespace caravan::app
