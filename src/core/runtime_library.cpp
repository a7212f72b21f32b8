#include "caravan/core/runtime_library.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace caravan {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

/// Those of PREFIX/lib/python3.*/site-packages and dist-packages, Debian's name for it, that are there,
/// sorted.
std::vector<fs::path> site_packages(const fs::path& prefix) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(prefix / "lib", ignored)) {
    if (!entry.path().filename().string().starts_with("python")) {
      continue;
    }
    for (const char* name : {"dist-packages", "site-packages"}) {
      if (const fs::path site = entry.path() / name; fs::is_directory(site, ignored)) {
        found.push_back(site);
      }
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

std::vector<std::string> library_places(const RuntimeLibrary& library) {
  if (const std::string given = environment(library.variable.c_str()); !given.empty()) {
    std::error_code ignored;
    return {fs::is_directory(given, ignored) ? (fs::path(given) / library.file).string() : given};
  }
  std::vector<std::string> places;
  const auto add = [&](const std::string& place) {
    if (std::find(places.begin(), places.end(), place) == places.end()) {
      places.push_back(place);
    }
  };
  const auto add_site = [&](const fs::path& site) {
    add((site / "nvidia" / library.python_folder / "lib" / library.file).string());
  };
  add(library.file);
  for (const std::string& toolkit :
       {environment("CUDA_HOME"), environment("CUDA_PATH"), std::string("/usr/local/cuda")}) {
    for (const char* folder : {"lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"}) {
      if (!toolkit.empty()) {
        add((fs::path(toolkit) / folder / library.file).string());
      }
    }
  }
  const auto add_python = [&](const fs::path& prefix) {
    for (const fs::path& site : site_packages(prefix)) {
      add_site(site);
    }
  };
  for (const char* prefix : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    if (const std::string folder = environment(prefix); !folder.empty()) {
      add_python(folder);
    }
  }
  const std::string sites = environment("CARAVAN_PYTHON_SITE");
  for (std::size_t begin = 0; begin < sites.size();) {
    const std::size_t end = std::min(sites.find(':', begin), sites.size());
    if (end > begin) {
      add_site(sites.substr(begin, end - begin));
    }
    begin = end + 1;
  }
  // Where pip puts packages by itself: for one user, or for all.
  if (const std::string home = environment("HOME"); !home.empty()) {
    add_python(fs::path(home) / ".local");
  }
  add_python("/usr/local");
  return places;
}

void* open_library(const std::string& file, std::string& reason) {
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* words = dlerror();
    reason = words != nullptr ? words : "cannot be opened";
  }
  return handle;
}

void close_library(void* handle) {
  dlclose(handle);
}

void* find_function(void* handle, const std::string& name) {
  return dlsym(handle, name.c_str());
}

std::string file_of_function(void* address, const std::string& otherwise) {
  Dl_info info{};
  return dladdr(address, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : otherwise;
}

std::string describe(const std::vector<PlaceTried>& tried) {
  std::string text;
  for (const PlaceTried& each : tried) {
    text += fmt::format("{} {} ({})", text.empty() ? "" : ",", each.place, each.reason);
  }
  return text;
}

bool may_be_there(const RuntimeLibrary& library, const std::string& place) {
  std::error_code ignored;
  return place == library.file || fs::exists(place, ignored);
}

}  // namespace caravan
