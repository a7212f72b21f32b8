// Shared libraries of NVIDIA's that are opened at run time, so that the program needs them neither to build
// nor to start: where to look for one, and what each place gave.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "caravan/core/error.h"

namespace caravan {

/// Which library. CARAVAN_<name> names its file or folder and is then the only place; python_folder is its
/// folder in site-packages/nvidia.
struct RuntimeLibrary {
  std::string file;           // "libnccl.so.2"
  std::string variable;       // "CARAVAN_NCCL"
  std::string python_folder;  // "nccl"
};

/// Files to try, in order, none twice: the loader's own search, CUDA_HOME, CUDA_PATH, /usr/local/cuda, the
/// Pythons in VIRTUAL_ENV, CONDA_PREFIX and CARAVAN_PYTHON_SITE (site-packages folders, separated by colons),
/// and those in ~/.local and /usr/local.
std::vector<std::string> library_places(const RuntimeLibrary& library);

/// Opens `file`, a path or a name for the loader's own search. Null with `reason` when that cannot be.
void* open_library(const std::string& file, std::string& reason);
void close_library(void* handle);
/// Null when the library has no such function.
void* find_function(void* handle, const std::string& name);
/// The file that has the function at `address`; `otherwise` when that is not known.
std::string file_of_function(void* address, const std::string& otherwise);

struct PlaceTried {
  std::string place;
  std::string reason;  // why not
};
/// " PLACE (REASON), PLACE (REASON)"
std::string describe(const std::vector<PlaceTried>& tried);
/// False for a path that is not there; a name for the loader's own search may be anywhere.
bool may_be_there(const RuntimeLibrary& library, const std::string& place);

/// What looking for a library gave. Open is made from a file and throws an Error that says why it cannot be
/// used.
template <class Open>
struct LibrarySearch {
  std::shared_ptr<const Open> library;  // null: none was usable
  std::vector<PlaceTried> tried;

  explicit LibrarySearch(const RuntimeLibrary& wanted) {
    for (const std::string& place : library_places(wanted)) {
      if (!may_be_there(wanted, place)) {
        tried.push_back({place, "no such file"});
        continue;
      }
      try {
        library = std::make_shared<const Open>(place);
        return;
      } catch (const Error& error) {
        tried.push_back({place, error.what()});
      }
    }
  }
};

}  // namespace caravan
