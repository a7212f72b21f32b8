// Whole files that are either the old ones or the new ones, never half of something, and the steps they are
// made of, for writers of larger things (io/output_file.h).
#pragma once

#include <string>
#include <string_view>

namespace caravan {

/// Writes `bytes` to a temporary file beside `path`, fsyncs it, renames it over `path` and fsyncs the folder:
/// after a crash at any moment `path` holds either its old content or all of `bytes`. The folder must exist.
/// Not collective: one process at a time may write one path. Throws IoError with the path and the system's
/// reason; the temporary file is removed then and `path` is unchanged.
void write_file_atomically(const std::string& path, std::string_view bytes);

/// What stands behind the final name of a file or folder that is not finished; each '?' is a letter or digit.
inline constexpr const char* kTemporarySuffixPattern = ".tmp-??????";

struct TemporaryFile {
  std::string path;
  int descriptor = -1;  // open for writing, to be closed by the caller
};

/// A new, empty file `path`.tmp-XXXXXX that did not exist before and is no link, with the permissions any new
/// file gets. IoError otherwise.
TemporaryFile create_temporary_file(const std::string& path);
/// The same for a folder; its path.
std::string create_temporary_folder(const std::string& path);

/// `path` and the folders above it, where they do not exist, each of them on the disk when this returns.
void create_folders(const std::string& path);

/// Makes the names in a folder survive a power cut. Some network file systems cannot; that is no error.
void flush_folder(const std::string& path);

/// The folder that holds `path`; "." for a plain name.
std::string folder_of(const std::string& path);

}  // namespace caravan
