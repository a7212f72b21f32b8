// The library of tests/fake_nccl, opened as NCCL would be, with its work on the streams of ThreadedDevice.
#pragma once

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>

#include "caravan/comm/nccl_library.h"
#include "tests/support/threaded_device.h"

namespace caravan::test {

/// "libfake_nccl.so" or "libincomplete_nccl.so" of this build.
inline std::string fake_nccl_file(const std::string& name = "libfake_nccl.so") {
  const char* program = std::getenv("CARAVAN_BIN");
  if (program == nullptr) {
    throw std::runtime_error("CARAVAN_BIN is not set: run the test by ctest");
  }
  return (std::filesystem::path(program).parent_path() / "fake_nccl" / name).string();
}

template <class Function>
Function fake_nccl_function(const NcclLibrary& library, const char* name) {
  auto* const found = reinterpret_cast<Function>(dlsym(library.handle(), name));
  if (found == nullptr) {
    throw std::runtime_error(std::string(name) + " is not in " + library.path());
  }
  return found;
}

/// Work of the library goes to `enqueue`, which runs it in the order of a stream.
template <auto enqueue>
void use_streams(const NcclLibrary& library) {
  using Enqueue = void (*)(void*, void (*)(void*), void (*)(void*), void*);
  fake_nccl_function<void (*)(Enqueue)>(library, "fake_nccl_use_streams")(
      [](void* stream, void (*run)(void*), void (*drop)(void*), void* argument) {
        const std::shared_ptr<void> owned(argument, drop);
        enqueue(stream, [=] { run(owned.get()); });
      });
}

inline std::shared_ptr<const NcclLibrary> fake_nccl() {
  auto library = std::make_shared<const NcclLibrary>(fake_nccl_file());
  use_streams<[](void* stream, std::function<void()> work) {
    ThreadedDevice::enqueue({StreamId::kCompute, stream}, std::move(work));
  }>(*library);
  return library;
}

/// After `after` more calls, ncclFUNCTION returns `result`; is_async: ncclCommGetAsyncError does instead.
inline void make_nccl_fail(const NcclLibrary& library, const char* function, int after, int result,
                           bool is_async) {
  fake_nccl_function<void (*)(const char*, int, int, int)>(library, "fake_nccl_fail")(function, after, result,
                                                                                      is_async ? 1 : 0);
}

}  // namespace caravan::test
