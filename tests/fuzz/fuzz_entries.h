// What the fuzzer and the replay test call: one function per kind of hostile input, each the program's real
// reading path over bytes in memory. A function returns for input that is read or properly refused; anything
// else (another exception, a broken promise of the reader, an endless message) ends the process.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace caravan::fuzz {

using Bytes = std::span<const std::byte>;

void pickle(Bytes input);
void zip(Bytes input);
void torch_file(Bytes input);
void safetensors(Bytes input);
void model_json(Bytes input);
void manifest(Bytes input);
void tokenizer_model(Bytes input);
void tokenizer_json(Bytes input);
void jsonl(Bytes input);
void gzip(Bytes input);
void yaml(Bytes input);

struct Entry {
  std::string_view name;  // of the target fuzz_<name> and of its folders under corpus/ and crashes/
  void (*run)(Bytes input);
};
std::span<const Entry> entries();

// ---- for the entries themselves

/// Runs `body`; true when it returned, false when it refused its input with an error for the user that is not
/// longer than `max_message_bytes`. Every other exception passes.
bool accepted(const std::function<void()>& body, std::size_t max_message_bytes = 2000);

/// Ends the process when a promise of a reader does not hold.
void require(bool holds, std::string_view promise);

/// The path of a regular file in memory that holds `input` until the next call.
std::string file_of(Bytes input);

std::string_view text_of(Bytes input);

}  // namespace caravan::fuzz
