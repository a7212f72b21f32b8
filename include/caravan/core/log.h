// One logger for the process, on standard error: results on standard output stay machine-readable.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

namespace caravan::log {

enum class Level : std::uint8_t { kDebug, kInfo, kWarning, kError };

/// Rank 0 speaks; `ranks` names others as "all", "1" or "0,2". Call once, before the first message; without a
/// call a single process speaks as rank 0. Throws ConfigError when `ranks` cannot be read or names a rank
/// that is not there.
void configure(int rank, int size, std::string_view ranks);
/// True when this rank's info messages are printed.
bool is_speaking();
/// Errors and warnings are printed on every rank, with the rank's number in front when there are several.
void write(Level level, const std::string& message);
/// `hook` is called before each message of this process: a progress line takes itself off the terminal. It
/// must not throw and not log. An empty function ends it.
void set_before_message(std::function<void()> hook);

template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  if (is_speaking()) {
    write(Level::kInfo, fmt::format(format, std::forward<Args>(args)...));
  }
}
template <class... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kWarning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace caravan::log
