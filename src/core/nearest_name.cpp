#include "caravan/core/nearest_name.h"

#include <algorithm>
#include <cctype>

namespace caravan {
namespace {

constexpr std::size_t kMaxLength = 64;

char lower(char letter) {
  return static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
}

}  // namespace

std::size_t edit_distance(std::string_view a, std::string_view b) {
  a = a.substr(0, kMaxLength);
  b = b.substr(0, kMaxLength);
  // Three rows of the table: two back for swaps, one back, and the one being filled.
  std::vector<std::size_t> before(b.size() + 1);
  std::vector<std::size_t> previous(b.size() + 1);
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) {
    row[j] = j;
  }
  for (std::size_t i = 1; i <= a.size(); ++i) {
    before.swap(previous);
    previous.swap(row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = previous[j - 1] + (lower(a[i - 1]) == lower(b[j - 1]) ? 0 : 1);
      row[j] = std::min({previous[j] + 1, row[j - 1] + 1, replaced});
      if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) && lower(a[i - 2]) == lower(b[j - 1])) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
  }
  return row[b.size()];
}

std::optional<std::string> nearest_name(std::string_view name, const std::vector<std::string>& candidates) {
  std::optional<std::string> best;
  // A third of the letters may be wrong, two in short names.
  std::size_t best_distance = std::max<std::size_t>(2, name.size() / 3) + 1;
  const auto length_difference = [&](const std::string& candidate) {
    return std::max(name.size(), candidate.size()) - std::min(name.size(), candidate.size());
  };
  for (const std::string& candidate : candidates) {
    const std::size_t distance = edit_distance(name, candidate);
    // Of equals the one as long as the name: letters are swapped or mistaken more often than forgotten.
    const bool is_nearer =
        distance < best_distance ||
        (best && distance == best_distance && length_difference(candidate) < length_difference(*best));
    if (is_nearer && distance < std::max(name.size(), candidate.size())) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

}  // namespace caravan
