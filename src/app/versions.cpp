#include "versions.h"

#include <fmt/format.h>
#include <mpi.h>

#include "caravan/core/build_info.h"
#include "kernels/cuda/device_count.h"

// cblas.h is for kernels only; the program asks the library for nothing but its name.
extern "C" char* openblas_get_config(void);

namespace caravan::app {
namespace {

std::string mpi_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string full(text, static_cast<std::size_t>(length));
  return full.substr(0, full.find(", package"));
}

}  // namespace

std::vector<std::pair<std::string, std::string>> program_versions() {
  const BuildInfo build = build_info();
  std::string options = build.build_type;
  if (*build.sanitize != '\0') {
    options += fmt::format(", sanitizers {}", build.sanitize);
  }
  options += fmt::format(", {}", cuda::build_description());
  return {{"caravan", build.version},     {"commit", build.commit}, {"build", options},
          {"compiler", build.compiler},   {"mpi", mpi_version()},   {"hdf5", CARAVAN_HDF5_VERSION},
          {"blas", openblas_get_config()}};
}

std::string version_text() {
  std::string text;
  for (const auto& [name, version] : program_versions()) {
    text += fmt::format("{:<9} {}\n", name, version);
  }
  text.pop_back();
  return text;
}

}  // namespace caravan::app
