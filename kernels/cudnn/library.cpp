#include "kernels/cudnn/library.h"

#include <fmt/format.h>

#include <type_traits>

#include "caravan/core/error.h"

namespace caravan::cudnn {
namespace {

constexpr std::size_t kOldest = 91000;  // from there on its masks are −inf, before the least float
constexpr std::size_t kTooNew = 100000;

const RuntimeLibrary kCudnn = {
    .file = "libcudnn.so.9", .variable = "CARAVAN_CUDNN", .python_folder = "cudnn"};

}  // namespace

Library::Library(const std::string& file) {
  std::string reason;
  void* handle = open_library(file, reason);
  if (handle == nullptr) {
    fail<DeviceError>("{}", reason);
  }
  try {
    for_each_function(table_, [&](const char* name, auto& function) {
      const std::string symbol = fmt::format("cudnn{}", name);
      void* address = find_function(handle, symbol);
      if (address == nullptr) {
        fail<DeviceError>("{} has no function {}: it is no cuDNN 9", file, symbol);
      }
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(address);
    });
    const std::size_t code = table_.GetVersion();
    version_ = fmt::format("{}.{}.{}", code / 10000, code / 100 % 100, code % 100);
    if (code < kOldest || code >= kTooNew) {
      fail<DeviceError>("{} is cuDNN {}; versions from 9.10 up to, but without, 10 can be used", file,
                        version_);
    }
  } catch (...) {
    close_library(handle);
    throw;
  }
  path_ = file_of_function(reinterpret_cast<void*>(table_.GetVersion), file);
}

std::vector<std::string> places() {
  return library_places(kCudnn);
}

Search find() {
  return Search(kCudnn);
}

std::string Search::why_none() const {
  return "no cuDNN that can be used; tried" + describe(tried) +
         "; install cuDNN 9, name its folder in CARAVAN_CUDNN, or set attention to own";
}

}  // namespace caravan::cudnn
