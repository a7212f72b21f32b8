// "Did you mean ...?": the known name nearest to what somebody wrote.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace caravan {

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`, upper and lower case
/// alike (optimal string alignment distance). Both are cut at 64 bytes.
std::size_t edit_distance(std::string_view a, std::string_view b);

/// The candidate nearest to `name`; nullopt when even that one is too far to be meant.
std::optional<std::string> nearest_name(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace caravan
