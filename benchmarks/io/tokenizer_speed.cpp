// Bytes of text per second of one core's time, encoding a file as one text and line by line. Processor time,
// not wall time, so that other programs on the machine count little.
//   benchmark_tokenizer_speed TOKENIZER TEXT [repetitions]
#include <algorithm>
#include <charconv>
#include <cstring>
#include <ctime>
#include <fstream>
#include <functional>
#include <iterator>

#include "caravan/core/build_info.h"
#include "caravan/core/clock.h"
#include "caravan/core/error.h"
#include "caravan/data/tokenizer.h"

using namespace caravan;

namespace {

std::string read(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    fail<IoError>("{}: cannot read", path);
  }
  return {std::istreambuf_iterator<char>(file), {}};
}

void measure(const char* what, std::size_t bytes, int repetitions,
             const std::function<std::size_t()>& encode) {
  std::vector<double> rates;
  std::size_t tokens = 0;
  for (int i = 0; i < repetitions; ++i) {
    const std::clock_t begin = std::clock();
    tokens = encode();
    const double seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
    rates.push_back(static_cast<double>(bytes) / seconds / 1e6);
  }
  std::sort(rates.begin(), rates.end());
  fmt::print("{}: {} tokens, median {:.1f} MB/s, lowest {:.1f}, highest {:.1f} of {} repetitions\n", what,
             tokens, rates[rates.size() / 2], rates.front(), rates.back(), repetitions);
}

void run(const char* tokenizer_path, const char* text_path, int repetitions) {
  const StopWatch load;
  const Tokenizer tokenizer = Tokenizer::load(tokenizer_path);
  fmt::print("{} {}, loaded in {:.3f} s\n", build_info().commit, build_info().build_type, load.seconds());
  const std::string text = read(text_path);
  measure("one text", text.size(), repetitions, [&] { return tokenizer.encode(text).size(); });
  measure("line by line", text.size(), repetitions, [&] {
    std::size_t tokens = 0;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = std::min(text.find('\n', at), text.size());
      tokens += tokenizer.encode(std::string_view(text).substr(at, end - at)).size();
      at = end + 1;
    }
    return tokens;
  });
}

}  // namespace

int main(int argc, char** argv) {
  int repetitions = 9;
  if (argc == 4) {
    std::from_chars(argv[3], argv[3] + std::strlen(argv[3]), repetitions);
  }
  if (argc < 3 || argc > 4 || repetitions < 1) {
    fmt::print(stderr, "usage: benchmark_tokenizer_speed TOKENIZER TEXT [repetitions]\n");
    return 2;
  }
  try {
    run(argv[1], argv[2], repetitions);
  } catch (const Error& error) {
    fmt::print(stderr, "benchmark_tokenizer_speed: {}\n", error.what());
    return 1;
  }
  return 0;
}
