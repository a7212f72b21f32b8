// cuDNN, opened at run time: a program with it builds and starts where there is none.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "caravan/core/runtime_library.h"
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

/// Files to try, in order (core/runtime_library.h); CARAVAN_CUDNN names one.
std::vector<std::string> places();

struct Search : LibrarySearch<Library> {
  using LibrarySearch::LibrarySearch;
  /// "no cuDNN that can be used; tried PLACE (REASON), ...; install cuDNN 9, ..."
  std::string why_none() const;
};
Search find();

}  // namespace caravan::cudnn
