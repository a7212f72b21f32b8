#include "caravan/comm/nccl_library.h"

#include <fmt/format.h>

#include "caravan/core/error.h"
#include "nccl_abi.h"

namespace caravan {
namespace {

constexpr int kOldest = 21800;
constexpr int kTooNew = 30000;

std::string version_text(int code) {
  return code < 20900 ? fmt::format("{}.{}.{}", code / 1000, code / 100 % 10, code % 100)
                      : fmt::format("{}.{}.{}", code / 10000, code / 100 % 100, code % 100);
}

const RuntimeLibrary kNccl = {.file = "libnccl.so.2", .variable = "CARAVAN_NCCL", .python_folder = "nccl"};

}  // namespace

NcclLibrary::NcclLibrary(const std::string& file) : table_(std::make_unique<nccl::Table>()) {
  std::string reason;
  handle_ = open_library(file, reason);
  if (handle_ == nullptr) {
    fail<CommError>("{}", reason);
  }
  try {
    nccl::for_each_function(*table_, [&](const char* name, auto& function) {
      const std::string symbol = fmt::format("nccl{}", name);
      void* address = find_function(handle_, symbol);
      if (address == nullptr) {
        fail<CommError>("{} has no function {}: it is no NCCL from 2.18 on", file, symbol);
      }
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(address);
    });
    int code = 0;
    if (const int result = table_->get_version(&code); result != nccl::kSuccess) {
      fail<CommError>("{}: ncclGetVersion says {}", file, table_->get_error_string(result));
    }
    version_ = version_text(code);
    if (code < kOldest || code >= kTooNew) {
      fail<CommError>("{} is NCCL {}; versions from 2.18 up to, but without, 3 can be used", file, version_);
    }
  } catch (...) {
    close_library(handle_);
    throw;
  }
  path_ = file_of_function(reinterpret_cast<void*>(table_->get_version), file);
}

// Not closed: NCCL has threads of its own that may outlive the last communicator.
NcclLibrary::~NcclLibrary() = default;

std::string NcclSearch::why_none() const {
  return "no NCCL that can be used; tried" + describe(tried);
}

std::vector<std::string> nccl_places() {
  return library_places(kNccl);
}

NcclSearch find_nccl() {
  return NcclSearch(kNccl);
}

}  // namespace caravan
