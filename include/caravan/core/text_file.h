// Small files that are read whole: configurations, JSON, tokenizers.
#pragma once

#include <cstdint>
#include <string>

namespace caravan {

/// All bytes of a regular file. IoError naming `path` when it cannot be read, is something else (a pipe is
/// refused, not waited for), or has more than `limit_bytes`.
std::string read_text_file(const std::string& path, std::int64_t limit_bytes);

}  // namespace caravan
