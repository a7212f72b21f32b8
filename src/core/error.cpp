#include "caravan/core/error.h"

#include <string_view>

namespace caravan::detail {

void check_failed(const char* condition, const char* file, int line, const std::string& message) {
  std::string_view path = file;
  if (const auto at = path.rfind('/'); at != std::string_view::npos) {
    path.remove_prefix(at + 1);
  }
  throw InternalError(
      fmt::format("{}:{}: check `{}` failed: {} (this is a bug in Caravan)", path, line, condition, message));
}

}  // namespace caravan::detail
