// cuDNN, opened at run time: a program with it builds and starts where there is none.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/cudnn/abi.h"

namespace caravan::cudnn {

/// An open cuDNN whose functions are all there and whose version is 9.10 or a later 9. Never closed: it has
/// threads and device memory of its own.
class Library {
 public:
  /// Throws DeviceError with what is wrong with this file.
  explicit Library(const std::string& file);

  const Table& table() const { return table_; }
  const std::string& version() const { return version_; }  // "9.19.0"
  const std::string& path() const { return path_; }

 private:
  Table table_{};
  std::string version_;
  std::string path_;
};

/// Files to try, in order. CARAVAN_CUDNN (a file, or the folder it is in) is the only one when it is set;
/// else the loader's own search, CUDA_HOME, CUDA_PATH, /usr/local/cuda, and nvidia/cudnn/lib of the Pythons
/// in VIRTUAL_ENV, CONDA_PREFIX and CARAVAN_PYTHON_SITE (site-packages folders, separated by colons).
std::vector<std::string> places();

struct Search {
  struct Tried {
    std::string place;
    std::string reason;
  };
  std::shared_ptr<const Library> library;  // null: none was usable
  std::vector<Tried> tried;

  /// "no cuDNN that can be used; tried PLACE (REASON), ...; install cuDNN 9, ..."
  std::string why_none() const;
};
Search find();

}  // namespace caravan::cudnn
