#include "kernels/cudnn/library.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <type_traits>

#include "caravan/core/error.h"

namespace caravan::cudnn {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFile = "libcudnn.so.9";
constexpr std::size_t kOldest = 91000;  // from there on its masks are −inf, before the least float
constexpr std::size_t kTooNew = 100000;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

void add_site(std::vector<std::string>& found, const fs::path& site) {
  found.push_back((site / "nvidia" / "cudnn" / "lib" / kFile).string());
}

/// PREFIX/lib/python3.*/site-packages, sorted.
void add_pythons(std::vector<std::string>& found, const fs::path& prefix) {
  std::vector<fs::path> sites;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(prefix / "lib", ignored)) {
    if (entry.path().filename().string().starts_with("python")) {
      sites.push_back(entry.path() / "site-packages");
    }
  }
  std::sort(sites.begin(), sites.end());
  for (const fs::path& site : sites) {
    add_site(found, site);
  }
}

}  // namespace

Library::Library(const std::string& file) {
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* reason = dlerror();
    fail<DeviceError>("{}", reason != nullptr ? reason : "cannot be opened");
  }
  try {
    for_each_function(table_, [&](const char* name, auto& function) {
      const std::string symbol = fmt::format("cudnn{}", name);
      void* address = dlsym(handle, symbol.c_str());
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
    dlclose(handle);
    throw;
  }
  Dl_info info{};
  path_ = dladdr(reinterpret_cast<void*>(table_.GetVersion), &info) != 0 && info.dli_fname != nullptr
              ? info.dli_fname
              : file;
}

std::vector<std::string> places() {
  if (const std::string given = environment("CARAVAN_CUDNN"); !given.empty()) {
    std::error_code ignored;
    return {fs::is_directory(given, ignored) ? (fs::path(given) / kFile).string() : given};
  }
  std::vector<std::string> found = {std::string(kFile)};
  for (const std::string& toolkit :
       {environment("CUDA_HOME"), environment("CUDA_PATH"), std::string("/usr/local/cuda")}) {
    for (const char* folder : {"lib64", "lib"}) {
      if (!toolkit.empty()) {
        found.push_back((fs::path(toolkit) / folder / kFile).string());
      }
    }
  }
  for (const char* prefix : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    if (const std::string folder = environment(prefix); !folder.empty()) {
      add_pythons(found, folder);
    }
  }
  const std::string sites = environment("CARAVAN_PYTHON_SITE");
  for (std::size_t begin = 0; begin < sites.size();) {
    const std::size_t end = std::min(sites.find(':', begin), sites.size());
    if (end > begin) {
      add_site(found, sites.substr(begin, end - begin));
    }
    begin = end + 1;
  }
  return found;
}

Search find() {
  Search search;
  for (const std::string& place : places()) {
    if (std::any_of(search.tried.begin(), search.tried.end(),
                    [&](const Search::Tried& each) { return each.place == place; })) {
      continue;
    }
    std::error_code ignored;
    if (place != kFile && !fs::exists(place, ignored)) {
      search.tried.push_back({place, "no such file"});
      continue;
    }
    try {
      search.library = std::make_shared<const Library>(place);
      return search;
    } catch (const DeviceError& error) {
      search.tried.push_back({place, error.what()});
    }
  }
  return search;
}

std::string Search::why_none() const {
  std::string text = "no cuDNN that can be used; tried";
  for (const Tried& each : tried) {
    text += fmt::format("{} {} ({})", &each == tried.data() ? "" : ",", each.place, each.reason);
  }
  return text + "; install cuDNN 9, name its folder in CARAVAN_CUDNN, or use Caravan's own attention";
}

}  // namespace caravan::cudnn
