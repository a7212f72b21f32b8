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

}  // namespace caravan
