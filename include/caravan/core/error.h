// Errors: which one to throw where (docs/notes/errors.md has the policy on one page).
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace caravan {

/// Base of everything Caravan throws. `what()` says what, where, the value and what to do.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The configuration or the command line is wrong; the user can mend it.
class ConfigError : public Error {
 public:
  using Error::Error;
};
/// A file is missing, malformed, or cannot be written.
class IoError : public Error {
 public:
  using Error::Error;
};
/// A device is missing, too small, or failed.
class DeviceError : public Error {
 public:
  using Error::Error;
};
/// A communication library failed.
class CommError : public Error {
 public:
  using Error::Error;
};
/// Training cannot go on: a loss or gradient is not finite.
class NumericError : public Error {
 public:
  using Error::Error;
};
/// A contract inside the program is broken: a bug in Caravan.
class InternalError : public Error {
 public:
  using Error::Error;
};

namespace detail {
[[noreturn]] void check_failed(const char* condition, const char* file, int line, const std::string& message);
}  // namespace detail

/// Throws `E` with a formatted message.
template <class E, class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw E(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace caravan

/// Always on: contracts at op and module borders. The message is a fmt format string with its values.
#define CARAVAN_CHECK(condition, ...)                                                              \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      ::caravan::detail::check_failed(#condition, __FILE__, __LINE__, ::fmt::format(__VA_ARGS__)); \
    }                                                                                              \
  } while (false)

/// Debug builds only: contracts in inner loops.
#ifdef NDEBUG
#define CARAVAN_DCHECK(condition, ...) static_cast<void>(0)
#else
#define CARAVAN_DCHECK(condition, ...) CARAVAN_CHECK(condition, __VA_ARGS__)
#endif
