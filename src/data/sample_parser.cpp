#include "caravan/data/sample_parser.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "caravan/core/error.h"
#include "caravan/core/utf8.h"

namespace caravan {
namespace {

constexpr int kMaxNesting = 128;  // of ignored values; bounds the recursion

constexpr std::uint64_t repeat(std::uint64_t byte) {
  return byte * 0x0101010101010101U;
}

std::uint64_t load_word(const char* at) {
  std::uint64_t word = 0;
  std::memcpy(&word, at, sizeof word);
  return word;
}

// High bit set in each byte that is zero (and perhaps in a byte above one: good for "is there any", not
// "where").
constexpr std::uint64_t zero_bytes(std::uint64_t word) {
  return (word - repeat(0x01)) & ~word & repeat(0x80);
}

// True when all eight bytes may stand in a JSON string as they are.
bool is_plain_word(std::uint64_t word) {
  const std::uint64_t control = (word - repeat(0x20)) & ~word;  // high bit: below 0x20
  return ((control | zero_bytes(word ^ repeat('"')) | zero_bytes(word ^ repeat('\\'))) & repeat(0x80)) == 0;
}

bool is_plain_byte(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte >= 0x20 && c != '"' && c != '\\';
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

void check_utf8(std::string_view line) {
  if (const std::size_t valid = valid_utf8_prefix(line); valid != line.size()) {
    fail<IoError>("column {}: not valid UTF-8 (byte 0x{:02x}); convert the file, for example with iconv",
                  valid + 1, static_cast<unsigned char>(line[valid]));
  }
}

void append_utf8(std::uint32_t code, std::string& out) {
  const auto put = [&out](std::uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0U | (code >> 6U));
    put(0x80U | (code & 0x3FU));
  } else if (code < 0x10000) {
    put(0xE0U | (code >> 12U));
    put(0x80U | ((code >> 6U) & 0x3FU));
    put(0x80U | (code & 0x3FU));
  } else {
    put(0xF0U | (code >> 18U));
    put(0x80U | ((code >> 12U) & 0x3FU));
    put(0x80U | ((code >> 6U) & 0x3FU));
    put(0x80U | (code & 0x3FU));
  }
}

class JsonLine {
 public:
  JsonLine(std::string_view line, std::int64_t vocab_size)
      : begin_(line.data()), at_(line.data()), end_(line.data() + line.size()), vocab_size_(vocab_size) {}

  SampleKind parse(Sample* sample) {
    skip_space();
    if (at_ == end_ || *at_ != '{') {
      error("expected a JSON object in one line, like {\"text\": \"...\"} or {\"ids\": [1, 2]}");
    }
    ++at_;
    skip_space();
    if (!take('}')) {
      do {
        member(sample);
        skip_space();
      } while (take(','));
      expect('}', "`,` or `}`");
    }
    skip_space();
    if (at_ != end_) {
      error("there is more after the JSON object; one object per line");
    }
    if (has_text_ == has_ids_) {
      fail<IoError>("{}", has_text_ ? "the object has both \"text\" and \"ids\"; keep one of them"
                                    : "the object has neither \"text\" nor \"ids\"");
    }
    return has_text_ ? SampleKind::kText : SampleKind::kIds;
  }

 private:
  [[noreturn]] void error(const std::string& what) const {
    fail<IoError>("column {}: {}", at_ - begin_ + 1, what);
  }
  void skip_space() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\r' || *at_ == '\n')) {
      ++at_;
    }
  }
  bool take(char c) {
    if (at_ != end_ && *at_ == c) {
      ++at_;
      return true;
    }
    return false;
  }
  void expect(char c, const char* wanted) {
    if (!take(c)) {
      error(fmt::format("expected {}, found {}", wanted, here()));
    }
  }
  std::string here() const {
    if (at_ == end_) {
      return "the end of the line";
    }
    const auto byte = static_cast<unsigned char>(*at_);
    return byte >= 0x20 && byte < 0x7F ? fmt::format("`{}`", *at_) : fmt::format("byte 0x{:02x}", byte);
  }

  void member(Sample* sample) {
    skip_space();
    key_.clear();
    string(&key_);
    skip_space();
    expect(':', "`:`");
    skip_space();
    if (key_ == "text") {
      note(has_text_);
      if (at_ == end_ || *at_ != '"') {
        error(fmt::format("\"text\" must be a string, found {}", here()));
      }
      if (sample != nullptr) {
        sample->text.clear();
      }
      string(sample != nullptr ? &sample->text : nullptr);
    } else if (key_ == "ids") {
      note(has_ids_);
      ids(sample);
    } else {
      value(0);
    }
  }
  void note(bool& has) const {
    if (has) {
      error(fmt::format("the key \"{}\" is there twice", key_));
    }
    has = true;
  }

  void ids(Sample* sample) {
    if (!take('[')) {
      error(fmt::format("\"ids\" must be a list of integers, found {}", here()));
    }
    if (sample != nullptr) {
      sample->ids.clear();
    }
    skip_space();
    if (take(']')) {
      return;
    }
    do {
      skip_space();
      const std::int32_t id = token_id();
      if (sample != nullptr) {
        sample->ids.push_back(id);
      }
      skip_space();
    } while (take(','));
    expect(']', "`,` or `]`");
  }
  std::int32_t token_id() {
    const char* const first = at_;
    std::int64_t id = 0;
    while (at_ != end_ && is_digit(*at_) && at_ - first < 11) {
      id = id * 10 + (*at_ - '0');
      ++at_;
    }
    const bool is_integer = at_ != first && (*first != '0' || at_ - first == 1) &&
                            (at_ == end_ || (*at_ != '.' && *at_ != 'e' && *at_ != 'E'));
    if (!is_integer) {
      at_ = first;
      error(fmt::format("an id must be a whole number from 0 on, found {}", here()));
    }
    if (id >= vocab_size_ || (at_ != end_ && is_digit(*at_))) {
      at_ = first;
      error(fmt::format("id {} is out of range: ids must be below {}", std::string(first, digits_end(first)),
                        vocab_size_));
    }
    return static_cast<std::int32_t>(id);
  }
  const char* digits_end(const char* first) const {
    const char* last = first;
    while (last != end_ && is_digit(*last) && last - first < 24) {
      ++last;
    }
    return last;
  }

  // A string with its quotes (the line is known to be UTF-8); decoded to the end of `out` when that is not
  // null.
  void string(std::string* out) {
    expect('"', "a string in double quotes");
    for (;;) {
      const char* const run = at_;
      while (end_ - at_ >= 8 && is_plain_word(load_word(at_))) {
        at_ += 8;
      }
      while (at_ != end_ && is_plain_byte(*at_)) {
        ++at_;
      }
      if (out != nullptr) {
        out->append(run, at_);
      }
      if (at_ == end_) {
        error("the line ends within a string");
      }
      if (take('"')) {
        return;
      }
      if (*at_ == '\\') {
        ++at_;
        escape(out);
      } else if (static_cast<unsigned char>(*at_) < 0x20) {
        error(fmt::format("a control character ({}) must be escaped in a JSON string", here()));
      }
    }
  }
  void escape(std::string* out) {
    static constexpr std::string_view kNames = "\"\\/bfnrt";
    static constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
    if (take('u')) {
      const std::uint32_t code = escaped_code();
      if (out != nullptr) {
        append_utf8(code, *out);
      }
      return;
    }
    const auto found = at_ == end_ ? std::string_view::npos : kNames.find(*at_);
    if (found == std::string_view::npos) {
      error(fmt::format("unknown escape: \\ before {}", here()));
    }
    ++at_;
    if (out != nullptr) {
      out->push_back(kMeanings[found]);
    }
  }
  std::uint32_t escaped_code() {
    const std::uint32_t first = hex4();
    if (first < 0xD800 || first > 0xDFFF) {
      return first;
    }
    if (first < 0xDC00 && take('\\') && take('u')) {
      const std::uint32_t second = hex4();
      if (second >= 0xDC00 && second <= 0xDFFF) {
        return 0x10000U + ((first - 0xD800U) << 10U) + (second - 0xDC00U);
      }
    }
    error(fmt::format("\\u{:04x} is half of a surrogate pair without the other half", first));
  }
  std::uint32_t hex4() {
    std::uint32_t code = 0;
    for (int digit = 0; digit < 4; ++digit, ++at_) {
      const char c = at_ == end_ ? '\0' : *at_;
      const char lower = static_cast<char>(static_cast<unsigned char>(c) | 0x20U);
      if (is_digit(c)) {
        code = code * 16 + static_cast<std::uint32_t>(c - '0');
      } else if (lower >= 'a' && lower <= 'f') {
        code = code * 16 + static_cast<std::uint32_t>(lower - 'a') + 10;
      } else {
        error(fmt::format("\\u needs four hexadecimal digits, found {}", here()));
      }
    }
    return code;
  }

  // Any value of an ignored key: checked, not kept.
  void value(int depth) {
    if (at_ == end_) {
      error("the line ends where a value should be");
    }
    if (depth > kMaxNesting) {
      error(fmt::format("values are nested deeper than {}", kMaxNesting));
    }
    switch (*at_) {
      case '"':
        string(nullptr);
        break;
      case '{':
        container(depth, '}');
        break;
      case '[':
        container(depth, ']');
        break;
      case 't':
        word("true");
        break;
      case 'f':
        word("false");
        break;
      case 'n':
        word("null");
        break;
      default:
        number();
        break;
    }
  }
  void container(int depth, char close) {
    ++at_;
    skip_space();
    if (take(close)) {
      return;
    }
    do {
      skip_space();
      if (close == '}') {
        string(nullptr);
        skip_space();
        expect(':', "`:`");
        skip_space();
      }
      value(depth + 1);
      skip_space();
    } while (take(','));
    expect(close, close == '}' ? "`,` or `}`" : "`,` or `]`");
  }
  void word(std::string_view wanted) {
    if (!std::string_view(at_, static_cast<std::size_t>(end_ - at_)).starts_with(wanted)) {
      error(fmt::format("expected `{}`", wanted));
    }
    at_ += wanted.size();
  }
  void number() {
    take('-');
    if (!take('0')) {
      digits("a value");
    }
    if (take('.')) {
      digits("a digit");
    }
    if (take('e') || take('E')) {
      if (!take('+')) {
        take('-');
      }
      digits("a digit");
    }
  }
  void digits(const char* wanted) {
    if (at_ == end_ || !is_digit(*at_)) {
      error(fmt::format("expected {}, found {}", wanted, here()));
    }
    while (at_ != end_ && is_digit(*at_)) {
      ++at_;
    }
  }

  const char* begin_;
  const char* at_;
  const char* end_;
  std::int64_t vocab_size_;
  std::string key_;
  bool has_text_ = false;
  bool has_ids_ = false;
};

}  // namespace

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t") == std::string_view::npos;
}

SampleKind parse_json_line(std::string_view line, std::optional<std::int64_t> vocab_size, Sample* sample) {
  check_utf8(line);
  constexpr std::int64_t kAnyId = std::int64_t{1} << 31U;
  const SampleKind kind = JsonLine(line, std::min(vocab_size.value_or(kAnyId), kAnyId)).parse(sample);
  if (sample != nullptr) {
    sample->kind = kind;
  }
  return kind;
}

SampleKind parse_text_line(std::string_view line, Sample* sample) {
  if (const std::size_t nul = line.find('\0'); nul != std::string_view::npos) {
    fail<IoError>("column {}: a NUL byte in plain text; is this a binary or UTF-16 file?", nul + 1);
  }
  check_utf8(line);
  if (sample != nullptr) {
    sample->kind = SampleKind::kText;
    sample->text.assign(line);
  }
  return SampleKind::kText;
}

}  // namespace caravan
