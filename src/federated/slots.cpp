#include "caravan/federated/slots.h"

#include <fmt/ranges.h>

#include "caravan/core/error.h"

namespace caravan {

std::int64_t slot_of(std::int64_t rank, std::int64_t round, std::int64_t ranks, Swapping swapping) {
  return swapping == Swapping::kOn ? (rank + round / 2) % ranks : rank;
}

std::vector<std::int64_t> slots_of_round(std::int64_t round, std::int64_t ranks, Swapping swapping) {
  std::vector<std::int64_t> slots;
  for (std::int64_t rank = 0; rank < ranks; ++rank) {
    slots.push_back(slot_of(rank, round, ranks, swapping));
  }
  return slots;
}

Coordinates slot_coordinates(std::int64_t slot, std::int64_t ranks) {
  return Coordinates({{"slot", slot, ranks}});
}

std::vector<std::int64_t> allowed_world_sizes(const ModelConfig& config) {
  std::vector<std::int64_t> allowed;
  for (std::int64_t n = 1; n <= config.n_kv_heads; ++n) {
    if (config.n_heads % n == 0 && config.n_kv_heads % n == 0 && config.intermediate_size % n == 0) {
      allowed.push_back(n);
    }
  }
  return allowed;
}

void check_world_size(const ModelConfig& config, std::int64_t ranks) {
  std::vector<std::string> undivided;
  const auto check = [&](const char* name, std::int64_t size) {
    if (size % ranks != 0) {
      undivided.push_back(fmt::format("{} = {}", name, size));
    }
  };
  check("n_heads", config.n_heads);
  check("n_kv_heads", config.n_kv_heads);
  check("intermediate_size", config.intermediate_size);
  if (!undivided.empty()) {
    fail<ConfigError>(
        "a world of {} ranks cannot cut this model into equal slices: {} cannot be divided by {}; "
        "allowed numbers of ranks: {}",
        ranks, fmt::join(undivided, ", "), ranks, fmt::join(allowed_world_sizes(config), ", "));
  }
}

}  // namespace caravan
