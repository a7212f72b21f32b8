// Small tokenizer files written by the tests themselves.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "support/temporary_folder.h"

namespace caravan::test {

/// The lines of a tokenizer.model: `tokens[i]` with rank i.
std::string tokenizer_model_text(const std::vector<std::string>& tokens);
/// The 256 single bytes in byte order, then `more`.
std::vector<std::string> byte_tokens_and(const std::vector<std::string>& more);

/// `relative` under CARAVAN_SHARED or beside the sources; empty, with a line that says so, where it is
/// absent.
std::string shared_file_or_skip(std::string_view relative);

}  // namespace caravan::test
