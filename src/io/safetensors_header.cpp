#include "safetensors_header.h"

#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "caravan/core/error.h"
#include "caravan/core/excerpt.h"

namespace caravan {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxDims = 8;      // as in pickles; Caravan's own have two
constexpr std::size_t kMaxReason = 300;  // the JSON parser quotes what it read last

struct Name {
  std::string_view name;
  DType dtype;
};

constexpr std::array kDtypes = {
    Name{"F64", DType::kFloat64}, Name{"F32", DType::kFloat32}, Name{"BF16", DType::kBFloat16},
    Name{"F16", DType::kFloat16}, Name{"I64", DType::kInt64},   Name{"I32", DType::kInt32},
    Name{"I16", DType::kInt16},   Name{"I8", DType::kInt8},     Name{"U8", DType::kUInt8},
    Name{"BOOL", DType::kBool},
};

/// Receives the JSON as events, so that a hostile header costs no more memory than its tensors' entries, and
/// duplicate keys are seen (a parsed tree would silently keep one).
class HeaderHandler : public nlohmann::json_sax<json> {
 public:
  explicit HeaderHandler(const std::string& path) : path_(path) {}

  std::vector<SafetensorsEntry> take() { return std::move(entries_); }

  bool start_object(std::size_t /*elements*/) override {
    if (state_ == State::kStart) {
      state_ = State::kRoot;
    } else if (state_ == State::kRootValue) {
      keys_.clear();
      fields_ = 0;
      state_ = is_metadata_ ? State::kMetadata : State::kTensor;
    } else {
      refuse("an object where none belongs");
    }
    return true;
  }

  bool key(string_t& text) override {
    // Metadata may have any keys; they are not kept.
    if (state_ != State::kMetadata && !is_plain_name(text)) {
      refuse("the name '{}' is empty, too long or holds control characters", excerpt(text));
    }
    if (state_ == State::kRoot) {
      if (!names_.insert(text).second) {
        refuse("'{}' occurs twice", text);
      }
      is_metadata_ = text == "__metadata__";
      if (!is_metadata_) {
        entries_.emplace_back().name = text;
      }
      state_ = State::kRootValue;
      return true;
    }
    if (!keys_.insert(text).second) {
      refuse("'{}' of '{}' occurs twice", excerpt(text), current());
    }
    if (state_ == State::kTensor) {
      state_ = text == "dtype"          ? State::kDtypeValue
               : text == "shape"        ? State::kShapeValue
               : text == "data_offsets" ? State::kOffsetsValue
                                        : State::kStart;
      if (state_ == State::kStart) {
        refuse("tensor '{}' has an unknown field '{}'", current(), excerpt(text));
      }
      ++fields_;
    }
    return true;
  }

  bool string(string_t& text) override {
    if (state_ == State::kMetadata) {
      return true;
    }
    if (state_ != State::kDtypeValue) {
      refuse("a string where none belongs");
    }
    const auto dtype = safetensors_dtype(text);
    if (!dtype) {
      refuse("tensor '{}' has dtype '{}', which is not supported", current(), excerpt(text));
    }
    entries_.back().dtype = *dtype;
    state_ = State::kTensor;
    return true;
  }

  bool start_array(std::size_t /*elements*/) override {
    if (state_ == State::kShapeValue) {
      state_ = State::kShape;
    } else if (state_ == State::kOffsetsValue) {
      state_ = State::kOffsets;
      offsets_ = 0;
    } else {
      refuse("a list where none belongs");
    }
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (state_ != State::kShape && state_ != State::kOffsets) {
      refuse("a number where none belongs");
    }
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      refuse("tensor '{}': {} is too large", current(), value);
    }
    const auto number = static_cast<std::int64_t>(value);
    if (state_ == State::kShape) {
      if (entries_.back().shape.size() == kMaxDims) {
        refuse("tensor '{}' has more than {} dims", current(), kMaxDims);
      }
      entries_.back().shape.push_back(number);
      return true;
    }
    (offsets_ == 0 ? entries_.back().begin : entries_.back().end) = number;
    if (++offsets_ > 2) {
      refuse("tensor '{}' has more than two data_offsets", current());
    }
    return true;
  }

  bool end_array() override {
    if (state_ == State::kOffsets && offsets_ != 2) {
      refuse("tensor '{}' has {} data_offsets instead of two", current(), offsets_);
    }
    state_ = State::kTensor;
    return true;
  }

  bool end_object() override {
    if (state_ == State::kTensor && fields_ != 3) {
      refuse("tensor '{}' lacks dtype, shape or data_offsets", current());
    }
    state_ = state_ == State::kRoot ? State::kEnd : State::kRoot;
    return true;
  }

  bool null() override { refuse("null where none belongs"); }
  bool boolean(bool /*value*/) override { refuse("true or false where none belongs"); }
  bool number_integer(number_integer_t value) override { refuse("negative number {}", value); }
  bool number_float(number_float_t /*value*/, const string_t& text) override {
    refuse("'{}' is not a whole number of 64 bits", excerpt(text));
  }
  bool binary(binary_t& /*value*/) override { refuse("binary data"); }
  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& error) override {
    refuse("no valid JSON at byte {}: {}", position, excerpt(error.what(), kMaxReason));
  }

 private:
  enum class State {
    kStart,
    kRoot,
    kRootValue,
    kMetadata,
    kTensor,
    kDtypeValue,
    kShapeValue,
    kOffsetsValue,
    kShape,
    kOffsets,
    kEnd,
  };

  const std::string& current() const { return is_metadata_ ? kMetadataName : entries_.back().name; }

  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    fail<IoError>("{}: safetensors header: {}", path_, fmt::format(format, std::forward<Args>(args)...));
  }

  inline static const std::string kMetadataName = "__metadata__";
  const std::string& path_;
  State state_ = State::kStart;
  bool is_metadata_ = false;
  int fields_ = 0;
  int offsets_ = 0;
  std::unordered_set<std::string> names_;
  std::unordered_set<std::string> keys_;
  std::vector<SafetensorsEntry> entries_;
};

}  // namespace

std::optional<DType> safetensors_dtype(std::string_view name) {
  for (const Name& entry : kDtypes) {
    if (entry.name == name) {
      return entry.dtype;
    }
  }
  return std::nullopt;
}

std::string_view safetensors_dtype_name(DType dtype) {
  for (const Name& entry : kDtypes) {
    if (entry.dtype == dtype) {
      return entry.name;
    }
  }
  fail<InternalError>("safetensors has no dtype for {}", dtype_name(dtype));
}

std::vector<SafetensorsEntry> parse_safetensors_header(std::string_view text, const std::string& path) {
  if (text.empty() || text.front() != '{') {
    fail<IoError>("{}: safetensors header does not begin with '{{'", path);
  }
  HeaderHandler handler(path);
  json::sax_parse(text, &handler);
  return handler.take();
}

}  // namespace caravan
