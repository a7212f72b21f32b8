#include "caravan/core/clock.h"

#include <fmt/chrono.h>

#include <ctime>

namespace caravan {

std::string utc_timestamp() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
}

}  // namespace caravan
