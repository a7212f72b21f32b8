// Text from a file as it may stand in an error message.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace caravan {

/// The first `limit` bytes of `text`, cut at the border of a UTF-8 character, as printable() gives them;
/// "..." stands for the rest.
std::string excerpt(std::string_view text, std::size_t limit = 80);

/// True when a name from a file may be kept and printed as it is: 1 to 512 bytes of UTF-8 without control
/// characters.
bool is_plain_name(std::string_view name);

}  // namespace caravan
