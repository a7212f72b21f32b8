#include "caravan/comm/nccl_library.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "caravan/core/error.h"
#include "nccl_abi.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFile = "libnccl.so.2";
constexpr int kOldest = 21800;
constexpr int kTooNew = 30000;

std::string version_text(int code) {
  return code < 20900 ? fmt::format("{}.{}.{}", code / 1000, code / 100 % 10, code % 100)
                      : fmt::format("{}.{}.{}", code / 10000, code / 100 % 100, code % 100);
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

/// PREFIX/lib/python3.*/site-packages, sorted.
std::vector<fs::path> site_packages(const fs::path& prefix) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(prefix / "lib", ignored)) {
    if (entry.path().filename().string().starts_with("python")) {
      found.push_back(entry.path() / "site-packages");
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

void add_site(std::vector<std::string>& places, const fs::path& site) {
  places.push_back((site / "nvidia" / "nccl" / "lib" / kFile).string());
}

std::string path_of(void* address, const std::string& otherwise) {
  Dl_info info{};
  return dladdr(address, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : otherwise;
}

}  // namespace

NcclLibrary::NcclLibrary(const std::string& file) : table_(std::make_unique<nccl::Table>()) {
  handle_ = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle_ == nullptr) {
    const char* reason = dlerror();
    fail<CommError>("{}", reason != nullptr ? reason : "cannot be opened");
  }
  try {
    nccl::for_each_function(*table_, [&](const char* name, auto& function) {
      const std::string symbol = fmt::format("nccl{}", name);
      void* address = dlsym(handle_, symbol.c_str());
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
    dlclose(handle_);
    throw;
  }
  path_ = path_of(reinterpret_cast<void*>(table_->get_version), file);
}

// Not closed: NCCL has threads of its own that may outlive the last communicator.
NcclLibrary::~NcclLibrary() = default;

std::string NcclSearch::why_none() const {
  std::string text = "no NCCL that can be used; tried";
  for (const Tried& each : tried) {
    text += fmt::format("{} {} ({})", &each == tried.data() ? "" : ",", each.place, each.reason);
  }
  return text;
}

std::vector<std::string> nccl_places() {
  if (const std::string given = environment("CARAVAN_NCCL"); !given.empty()) {
    std::error_code ignored;
    return {fs::is_directory(given, ignored) ? (fs::path(given) / kFile).string() : given};
  }
  std::vector<std::string> places = {std::string(kFile)};
  for (const std::string& toolkit :
       {environment("CUDA_HOME"), environment("CUDA_PATH"), std::string("/usr/local/cuda")}) {
    for (const char* folder : {"lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"}) {
      if (!toolkit.empty()) {
        places.push_back((fs::path(toolkit) / folder / kFile).string());
      }
    }
  }
  for (const char* prefix : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    if (const std::string folder = environment(prefix); !folder.empty()) {
      for (const fs::path& site : site_packages(folder)) {
        add_site(places, site);
      }
    }
  }
  const std::string sites = environment("CARAVAN_PYTHON_SITE");
  for (std::size_t begin = 0; begin < sites.size();) {
    const std::size_t end = std::min(sites.find(':', begin), sites.size());
    if (end > begin) {
      add_site(places, sites.substr(begin, end - begin));
    }
    begin = end + 1;
  }
  return places;
}

NcclSearch find_nccl() {
  NcclSearch search;
  for (const std::string& place : nccl_places()) {
    const auto is_same = [&](const NcclSearch::Tried& each) { return each.place == place; };
    if (std::any_of(search.tried.begin(), search.tried.end(), is_same)) {
      continue;
    }
    std::error_code ignored;
    if (place != kFile && !fs::exists(place, ignored)) {
      search.tried.push_back({place, "no such file"});
      continue;
    }
    try {
      search.library = std::make_shared<const NcclLibrary>(place);
      return search;
    } catch (const CommError& error) {
      search.tried.push_back({place, error.what()});
    }
  }
  return search;
}

}  // namespace caravan
