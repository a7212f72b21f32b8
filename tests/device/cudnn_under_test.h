// cuDNN for the device under test: the fake one (tests/fake_cudnn) over the emulated device, what the machine
// has beside a GPU.
#pragma once

#include <dlfcn.h>

#include "device_under_test.h"

namespace caravan::test {

#ifdef CARAVAN_FAKE_CUDNN
inline constexpr bool kIsFakeCudnn = true;
#else
inline constexpr bool kIsFakeCudnn = false;
#endif

/// Null, with the reason said and the test program skipped, where there is no cuDNN.
inline std::shared_ptr<const cudnn::Library> cudnn_or_skip() {
#ifdef CARAVAN_FAKE_CUDNN
  return std::make_shared<const cudnn::Library>(CARAVAN_FAKE_CUDNN);
#else
  const cudnn::Search search = cudnn::find();
  if (search.library == nullptr) {
    WARN("skipped: " << search.why_none());
    something_was_skipped() = true;
  }
  return search.library;
#endif
}

/// Graphs that the fake cuDNN has executed.
inline std::int64_t fake_executions(const cudnn::Library& library) {
  void* const handle = dlopen(library.path().c_str(), RTLD_NOW | RTLD_NOLOAD);
  REQUIRE(handle != nullptr);
  auto* const count = reinterpret_cast<std::int64_t (*)()>(dlsym(handle, "fake_cudnn_executions"));
  REQUIRE(count != nullptr);
  const std::int64_t executions = count();
  dlclose(handle);
  return executions;
}

/// cuDNN's attention on the device under test, with memory for `largest`.
inline std::unique_ptr<cudnn::PlannedAttention> cudnn_attention(
    const std::shared_ptr<const cudnn::Library>& library, const AttentionShape& largest) {
  auto attention = std::make_unique<cudnn::PlannedAttention>(*device_under_test().runtime, library, largest,
                                                             DType::kBFloat16);
  attention->allocate_workspace();
  return attention;
}

}  // namespace caravan::test
