// The files a checkpoint folder of ours, of Meta or of Hugging Face consists of: what may be replaced or
// removed with it.
#pragma once

#include <string>

namespace caravan {

/// True for the names of weights, shapes, tokenizers and run records.
bool is_checkpoint_file_name(const std::string& name);

/// Empty when `folder` is a folder of nothing but such files (or empty); else the path of what does not
/// belong there: the folder itself when it is a link or no folder.
std::string foreign_entry(const std::string& folder);

/// True for a name that only an unfinished write has: <name>.<pid>.tmp of core/atomic_file.h,
/// <name>.tmp-XXXXXX of io/output_file.h.
bool has_temporary_suffix(const std::string& name);
/// "a.pth" of "a.pth.tmp-Xy12Zq"; any other name as it is.
std::string without_temporary_suffix(const std::string& name);

/// Removes such files from `folder`, also half-written ones, the records that make it a checkpoint
/// (manifest.json, caravan.json) first, so that what a kill leaves is no checkpoint. Then removes the folder,
/// unless something else is in it: that is kept, with a warning. Links are not followed. IoError.
void remove_checkpoint_folder(const std::string& folder);

}  // namespace caravan
