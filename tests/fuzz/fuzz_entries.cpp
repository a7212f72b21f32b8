#include "fuzz/fuzz_entries.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "caravan/core/error.h"

namespace caravan::fuzz {

std::span<const Entry> entries() {
  static constexpr std::array kEntries = {
      Entry{"pickle", pickle},
      Entry{"zip", zip},
      Entry{"torch_file", torch_file},
      Entry{"safetensors", safetensors},
      Entry{"model_json", model_json},
      Entry{"manifest", manifest},
      Entry{"tokenizer_model", tokenizer_model},
      Entry{"tokenizer_json", tokenizer_json},
      Entry{"jsonl", jsonl},
      Entry{"gzip", gzip},
      Entry{"yaml", yaml},
  };
  return kEntries;
}

bool accepted(const std::function<void()>& body, std::size_t max_message_bytes) {
  std::string message;
  try {
    body();
    return true;
  } catch (const ConfigError& error) {
    message = error.what();
  } catch (const IoError& error) {
    message = error.what();
  }
  require(!message.empty(), "a refusal says why");
  require(message.size() <= max_message_bytes, "a value from a file is cut in messages");
  return false;
}

void require(bool holds, std::string_view promise) {
  if (!holds) {
    fmt::print(stderr, "broken promise: {}\n", promise);
    std::abort();
  }
}

std::string file_of(Bytes input) {
  static const int descriptor = ::memfd_create("fuzz", MFD_CLOEXEC);
  require(descriptor >= 0 && ::ftruncate(descriptor, 0) == 0, "a file in memory can be made");
  while (!input.empty()) {
    // The offset of the descriptor is of no use here: readers open the file anew.
    const ssize_t count = ::write(descriptor, input.data(), input.size());
    require(count > 0, "a file in memory can be written");
    input = input.subspan(static_cast<std::size_t>(count));
  }
  require(::lseek(descriptor, 0, SEEK_SET) == 0, "a file in memory can be rewound");
  return fmt::format("/proc/self/fd/{}", descriptor);
}

std::string_view text_of(Bytes input) {
  return {reinterpret_cast<const char*>(input.data()), input.size()};
}

}  // namespace caravan::fuzz
