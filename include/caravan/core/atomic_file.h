// Whole files that are either the old ones or the new ones, never half of something.
#pragma once

#include <string>
#include <string_view>

namespace caravan {

/// Writes `bytes` to a temporary file beside `path`, fsyncs it, renames it over `path` and fsyncs the folder:
/// after a crash at any moment `path` holds either its old content or all of `bytes`. The folder must exist.
/// Not collective: one process at a time may write one path. Throws IoError with the path and the system's
/// reason; the temporary file is removed then and `path` is unchanged.
void write_file_atomically(const std::string& path, std::string_view bytes);

}  // namespace caravan
