// Text from a file as it may stand in an error message.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace caravan {

/// `text` with control characters as '?' (a terminal would obey them), cut at the border of a UTF-8 character
/// to at most `limit` bytes, "..." standing for the rest.
std::string excerpt(std::string_view text, std::size_t limit = 80);

/// True when a name from a file may be kept and printed as it is: 1 to 512 bytes, no control characters.
bool is_plain_name(std::string_view name);

}  // namespace caravan
