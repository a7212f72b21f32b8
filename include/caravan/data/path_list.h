// Paths and globs of the configuration turned into files.
#pragma once

#include <string>
#include <vector>

namespace caravan {

/// Each entry is a path or a glob (* ? [...], not across folders); an entry that exists as it is written is
/// taken literally. The list's order is kept and the matches of one glob are sorted by their bytes, so that
/// every rank sees the same order. A file named twice is read twice. Throws ConfigError for an empty list and
/// IoError for a pattern without matches, a missing file, a folder, or anything that is not a regular file.
std::vector<std::string> expand_paths(const std::vector<std::string>& patterns);

}  // namespace caravan
