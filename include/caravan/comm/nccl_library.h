// NCCL, opened at run time: the program needs it neither to build nor to start.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "caravan/core/runtime_library.h"

namespace caravan {

namespace nccl {  // src/comm/nccl_abi.h
struct Table;
struct Comm;
}  // namespace nccl

/// An open libnccl whose functions and version fit; stays open.
class NcclLibrary {
 public:
  /// `file` is a path, or a name for the system's own search. CommError says why it cannot be used.
  explicit NcclLibrary(const std::string& file);
  ~NcclLibrary();
  NcclLibrary(const NcclLibrary&) = delete;
  NcclLibrary& operator=(const NcclLibrary&) = delete;
  NcclLibrary(NcclLibrary&&) = delete;
  NcclLibrary& operator=(NcclLibrary&&) = delete;

  const nccl::Table& functions() const { return *table_; }
  /// "2.28.9"
  const std::string& version() const { return version_; }
  /// Where the system found it.
  const std::string& path() const { return path_; }
  void* handle() const { return handle_; }

 private:
  void* handle_ = nullptr;
  std::unique_ptr<nccl::Table> table_;
  std::string version_;
  std::string path_;
};

/// What looking for NCCL gave.
struct NcclSearch : LibrarySearch<NcclLibrary> {
  using LibrarySearch::LibrarySearch;
  /// "no NCCL that can be used; tried /folder/libnccl.so.2 (no such file), ..."
  std::string why_none() const;
};

/// The files where NCCL may be (core/runtime_library.h); CARAVAN_NCCL names one.
std::vector<std::string> nccl_places();

/// The first of nccl_places() that can be used.
NcclSearch find_nccl();

}  // namespace caravan
