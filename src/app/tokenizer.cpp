// caravan tokenizer train | encode | decode
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "caravan/core/clock.h"
#include "caravan/core/error.h"
#include "caravan/core/log.h"
#include "caravan/data/bpe_trainer.h"
#include "caravan/data/tokenizer.h"
#include "choice.h"
#include "commands.h"

namespace caravan::app {
namespace {

using nlohmann::json;

struct TrainOptions {
  std::vector<std::string> corpora;
  std::string out;
  BpeTrainerOptions bpe;
};

struct CodeOptions {
  std::string tokenizer;
  TokenizerVariant variant = TokenizerVariant::kAuto;
  bool json = false;
  bool add_special = false;
};

const std::map<std::string, TokenizerVariant> kVariants = {{"auto", TokenizerVariant::kAuto},
                                                           {"3.0", TokenizerVariant::kLlama30},
                                                           {"3.1", TokenizerVariant::kLlama31}};

void train(const TrainOptions& options) {
  const std::filesystem::path folder = std::filesystem::path(options.out).parent_path();
  if (!folder.empty()) {
    std::filesystem::create_directories(folder);
  }
  const StopWatch watch;
  const TokenizerTrainingReport report = train_tokenizer(options.corpora, options.bpe, options.out);
  fmt::print("{}: {} tokens from {} samples, {} bytes of text, {} different pieces, {:.1f} s\n", options.out,
             report.vocab_size, report.samples, report.text_bytes, report.distinct_pieces, watch.seconds());
  if (report.vocab_size < options.bpe.vocab_size) {
    log::warning(
        "the text gave {} tokens instead of {}: no further pair occurs {} times; give more text or lower "
        "--min-frequency, and use {} as the model's vocab_size",
        report.vocab_size, options.bpe.vocab_size, options.bpe.min_frequency, report.vocab_size);
  }
}

[[noreturn]] void fail_at_line(std::int64_t line, std::string_view problem) {
  fail<IoError>("standard input, line {}: {}", line, problem);
}

/// Buffered by the block, not by stdio's characters. Before the first use of either stream.
void use_fast_streams() {
  std::ios::sync_with_stdio(false);
  std::cin.tie(nullptr);
}

/// Output waits in the stream's buffer only while more input is already there: a program that asks line by
/// line gets its answers.
void end_answer() {
  std::cout << '\n';
  if (std::cin.rdbuf()->in_avail() <= 0) {
    std::cout.flush();
  }
}

template <class Range>
void print_ids(const Range& ids, std::string_view separator) {
  std::string text;
  for (const std::int32_t id : ids) {
    fmt::format_to(std::back_inserter(text), "{}{}", text.empty() ? "" : separator, id);
  }
  std::cout << text;
}

/// The four hexadecimal digits of \uXXXX at `at`; -1 when none stands there.
int escaped_unit(std::string_view text, std::size_t at) {
  int unit = -1;
  if (text.substr(at, 2) == "\\u" && at + 6 <= text.size()) {
    const auto [end, error] = std::from_chars(text.data() + at + 2, text.data() + at + 6, unit, 16);
    return error == std::errc{} && end == text.data() + at + 6 ? unit : -1;
  }
  return unit;
}

/// Half a surrogate pair is what some programs write for bytes that were no text; a JSON parser refuses it,
/// so it becomes U+FFFD here, like everything else that is no text.
std::string without_lone_surrogates(std::string text) {
  for (std::size_t at = text.find('\\'); at < text.size(); at = text.find('\\', at)) {
    const int unit = escaped_unit(text, at);
    const bool is_high = unit >= 0xD800 && unit <= 0xDBFF;
    const int next = is_high ? escaped_unit(text, at + 6) : -1;
    if (next >= 0xDC00 && next <= 0xDFFF) {
      at += 12;
    } else if (unit >= 0xD800 && unit <= 0xDFFF) {
      text.replace(at, 6, "\\uFFFD");
      at += 6;
    } else {
      at += 2;  // \uXXXX of a character of its own: its digits hold no backslash
    }
  }
  return text;
}

std::vector<std::int32_t> encode_text(const Tokenizer& tokenizer, std::string_view text, bool add_special) {
  std::vector<std::int32_t> ids;
  if (add_special) {
    ids.push_back(tokenizer.bos_id());
  }
  tokenizer.append_ids(text, ids);
  if (add_special) {
    ids.push_back(tokenizer.eos_id());
  }
  return ids;
}

void encode(const CodeOptions& options) {
  use_fast_streams();
  const Tokenizer tokenizer = Tokenizer::load(options.tokenizer, options.variant);
  if (!options.json) {
    const std::string text{std::istreambuf_iterator<char>(std::cin), {}};
    if (const std::size_t valid = valid_utf8_prefix(text); valid != text.size()) {
      log::warning("standard input is not UTF-8 at byte {}; such bytes are encoded as U+FFFD", valid);
    }
    print_ids(encode_text(tokenizer, text, options.add_special), " ");
    end_answer();
    return;
  }
  std::string line;
  for (std::int64_t number = 1; std::getline(std::cin, line); ++number) {
    const json value = json::parse(without_lone_surrogates(replace_invalid_utf8(line)), nullptr, false);
    if (!value.is_string()) {
      fail_at_line(number,
                   fmt::format("`{}` is not a JSON string", replace_invalid_utf8(line.substr(0, 60))));
    }
    std::cout << '[';
    print_ids(encode_text(tokenizer, value.get_ref<const std::string&>(), options.add_special), ", ");
    std::cout << ']';
    end_answer();
  }
}

/// Ids between spaces, commas and brackets: what encode prints with and without --json.
std::vector<std::int32_t> parse_ids(const std::string& line, std::int64_t number) {
  std::string text = line;
  std::replace_if(
      text.begin(), text.end(),
      [](char c) { return c == ',' || c == '[' || c == ']' || c == '\t' || c == '\r'; }, ' ');
  std::vector<std::int32_t> ids;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at != end) {
    if (*at == ' ') {
      ++at;
      continue;
    }
    std::int32_t id = 0;
    const auto [next, error] = std::from_chars(at, end, id);
    if (error != std::errc{} || (next != end && *next != ' ')) {
      fail_at_line(number, fmt::format("`{}` is not a token id", std::string(at, std::find(at, end, ' '))));
    }
    ids.push_back(id);
    at = next;
  }
  return ids;
}

void decode(const CodeOptions& options) {
  use_fast_streams();
  const Tokenizer tokenizer = Tokenizer::load(options.tokenizer, options.variant);
  std::string line;
  for (std::int64_t number = 1; std::getline(std::cin, line); ++number) {
    const std::string text = tokenizer.decode(parse_ids(line, number));
    // ASCII only: some readers take U+2028 for the end of a line.
    std::cout << (options.json ? json(text).dump(-1, ' ', true) : text);
    end_answer();
  }
}

void add_train(CLI::App& group) {
  auto options = std::make_shared<TrainOptions>();
  CLI::App* command = group.add_subcommand("train", "make a byte-level BPE tokenizer.json from text");
  command
      ->add_option("files", options->corpora,
                   "text: .txt (a sample per line) or .jsonl with `text`, also .gz; globs")
      ->required();
  command->add_option("--out,-o", options->out, "tokenizer.json to write")->required();
  command->add_option("--vocab-size", options->bpe.vocab_size, "tokens in all, 3 special ones included")
      ->capture_default_str();
  command
      ->add_option("--min-frequency", options->bpe.min_frequency, "how often a pair must occur to be a token")
      ->capture_default_str();
  command->footer(
      "Example:\n  caravan tokenizer train corpus/*.txt --vocab-size 4096 --out runs/tokenizer.json");
  command->callback([options] { train(*options); });
}

std::shared_ptr<CodeOptions> add_code_options(CLI::App& command) {
  auto options = std::make_shared<CodeOptions>();
  command
      .add_option("--tokenizer,-t", options->tokenizer,
                  "tokenizer.model, tokenizer.json, or a folder with one")
      ->required();
  command
      .add_option("--tokenizer-variant", options->variant,
                  "names of tokenizer.model's special tokens: 3.0, 3.1, or auto (by params.json beside it)")
      ->transform(choice_of(kVariants))
      ->option_text("{auto,3.0,3.1}");
  return options;
}

void add_encode(CLI::App& group) {
  CLI::App* command = group.add_subcommand("encode", "text on standard input to ids");
  const auto options = add_code_options(*command);
  command->add_flag("--json", options->json,
                    "one JSON string per line in, one JSON list of ids per line out");
  command->add_flag("--add-special", options->add_special, "put begin and end of text around the ids");
  command->footer(
      "Without --json the whole input is one text. Special tokens are never added unless asked for, and text "
      "that\n"
      "spells one is ordinary text.\n"
      "Examples:\n"
      "  caravan tokenizer encode -t tokenizer.model < story.txt\n"
      "  echo '\"Hello world\"' | caravan tokenizer encode --tokenizer tokenizer.model --json");
  command->callback([options] { encode(*options); });
}

void add_decode(CLI::App& group) {
  CLI::App* command = group.add_subcommand("decode", "ids on standard input to text, line by line");
  const auto options = add_code_options(*command);
  command->add_flag("--json", options->json, "print each text as a JSON string");
  command->footer("Example:\n  echo '9906 1917' | caravan tokenizer decode -t tokenizer.model");
  command->callback([options] { decode(*options); });
}

}  // namespace

void add_tokenizer_command(CLI::App& program) {
  CLI::App* group = program.add_subcommand("tokenizer", "train a tokenizer, encode and decode with one");
  group->require_subcommand(1);
  group->footer("Example:\n  caravan tokenizer encode --help");
  add_train(*group);
  add_encode(*group);
  add_decode(*group);
}

}  // namespace caravan::app
