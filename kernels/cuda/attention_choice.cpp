#include "kernels/cuda/attention_choice.h"

#include <atomic>
#include <cstdlib>
#include <string_view>

#include "caravan/core/error.h"

namespace caravan::cuda {
namespace {

std::atomic<bool>& hopper_is_chosen() {
  static std::atomic<bool> is_chosen = false;
  return is_chosen;
}

std::atomic<std::int64_t>& shared_bytes_chosen() {
  static std::atomic<std::int64_t> bytes = std::int64_t{163} * 1024;
  return bytes;
}

}  // namespace

void choose_attention(int compute_capability, std::int64_t shared_bytes) {
  constexpr int kHopper = 90;
  const char* value = std::getenv("CARAVAN_HOPPER_ATTENTION");
  const std::string_view text = value != nullptr ? value : compute_capability == kHopper ? "1" : "0";
  if (text != "0" && text != "1") {
    fail<ConfigError>(
        "CARAVAN_HOPPER_ATTENTION={}: set it to 0 for the portable attention kernels, to 1 for the Hopper "
        "ones "
        "(not at all: those where they run)",
        text);
  }
  if (text == "1" && compute_capability != kHopper) {
    fail<ConfigError>(
        "CARAVAN_HOPPER_ATTENTION=1 wants a GPU of compute capability 9.0, and this one has {}.{}; unset it, "
        "the "
        "portable attention kernels run here",
        compute_capability / 10, compute_capability % 10);
  }
  hopper_is_chosen() = text == "1";
  shared_bytes_chosen() = shared_bytes;
}

bool uses_hopper_attention() {
  return hopper_is_chosen();
}

std::int64_t shared_bytes_of_block() {
  return shared_bytes_chosen();
}

}  // namespace caravan::cuda
