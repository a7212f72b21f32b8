// One libFuzzer program per entry; CMake defines the name.
#include <cstddef>
#include <cstdint>
#include <span>

#include "caravan/core/log.h"
#include "fuzz/fuzz_entries.h"

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  caravan::log::configure(1, 2, "0");  // a rank that does not speak: notes on ignored keys cost time
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  caravan::fuzz::CARAVAN_FUZZ_ENTRY(std::as_bytes(std::span(data, size)));
  return 0;
}
