// What is called, and where, for messages. nvcc reads it too.
#pragma once

namespace caravan::cuda {

/// Made from the name alone where the call stands: who takes one need not be told the place.
struct NamedCall {
  const char* name;
  const char* file;
  int line;
  // NOLINTNEXTLINE(google-explicit-constructor): a literal at the call is what it is for
  constexpr NamedCall(const char* called, const char* in_file = __builtin_FILE(),
                      int at_line = __builtin_LINE())
      : name(called), file(in_file), line(at_line) {}
};

}  // namespace caravan::cuda
