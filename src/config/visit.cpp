#include "caravan/config/visit.h"

#include <fmt/format.h>

#include <cmath>

namespace caravan {

bool Bounds::contain(double value) const {
  return (is_low_open ? value > low : value >= low) && (is_high_open ? value < high : value <= high);
}

std::string Bounds::str() const {
  const bool has_low = std::isfinite(low);
  const bool has_high = std::isfinite(high);
  if (has_low && has_high && !is_low_open && !is_high_open) {
    return fmt::format("from {} to {:.15g}", low, high);
  }
  std::string text;
  if (has_low) {
    text = fmt::format("{} {}", is_low_open ? "greater than" : "at least", low);
  }
  if (has_high) {
    text += fmt::format("{}{} {}", has_low ? " and " : "", is_high_open ? "less than" : "at most", high);
  }
  return text;
}

}  // namespace caravan
