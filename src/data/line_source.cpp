#include "caravan/data/line_source.h"

#include <algorithm>
#include <cstring>

#include "caravan/core/error.h"

namespace caravan {
namespace {

constexpr std::size_t kUsualBuffer = std::size_t{256} << 10;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

}  // namespace

LineSource::LineSource(std::string path, std::int64_t max_line_bytes)
    : path_(std::move(path)),
      max_line_bytes_(max_line_bytes),
      bytes_(open_bytes(path_)),
      buffer_(std::min(kUsualBuffer, static_cast<std::size_t>(max_line_bytes) + 2)) {
  CARAVAN_CHECK(max_line_bytes > 0, "max_line_bytes is {}", max_line_bytes);
}

bool LineSource::next(std::string_view& line) {
  std::size_t searched = begin_;
  for (;;) {
    const auto* found =
        static_cast<const char*>(std::memchr(buffer_.data() + searched, '\n', end_ - searched));
    if (found != nullptr) {
      const auto length = static_cast<std::size_t>(found - (buffer_.data() + begin_));
      return emit(length, length + 1, line);
    }
    const std::size_t held = end_ - begin_;
    // One more than the limit may be held: a carriage return that does not count.
    if (held > static_cast<std::size_t>(max_line_bytes_) + 1) {
      fail<IoError>("{}:{}: the line is longer than {} bytes; split the document", path_, line_number_ + 1,
                    max_line_bytes_);
    }
    make_room();
    searched = begin_ + held;
    if (!fill()) {
      return held > 0 && emit(held, held, line);
    }
  }
}

void LineSource::seek(std::int64_t offset, std::int64_t line_number) {
  CARAVAN_CHECK(offset >= 0 && line_number >= 1, "{}: seek to byte {}, line {}", path_, offset, line_number);
  bytes_->seek(offset);
  begin_ = 0;
  end_ = 0;
  next_offset_ = offset;
  line_number_ = line_number - 1;
}

bool LineSource::fill() {
  const std::size_t count = bytes_->read(buffer_.data() + end_, buffer_.size() - end_);
  end_ += count;
  return count > 0;
}

// Moves the unfinished line to the front, in a larger buffer when it fills this one, back in the usual one
// when a long line has passed.
void LineSource::make_room() {
  const std::size_t held = end_ - begin_;
  if (begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, held);
    begin_ = 0;
    end_ = held;
  }
  if (held == buffer_.size()) {
    const auto limit = static_cast<std::size_t>(max_line_bytes_) + 2;
    std::vector<char> larger;
    larger.reserve(std::min(2 * held, limit));
    larger.assign(buffer_.begin(), buffer_.end());
    larger.resize(std::min(2 * held, limit));
    buffer_ = std::move(larger);
  } else if (buffer_.size() > 4 * kUsualBuffer && held < kUsualBuffer / 2) {
    std::vector<char> smaller(kUsualBuffer);
    std::memcpy(smaller.data(), buffer_.data(), held);
    buffer_ = std::move(smaller);
  }
}

bool LineSource::emit(std::size_t length, std::size_t consumed, std::string_view& line) {
  line = std::string_view(buffer_.data() + begin_, length);
  line_offset_ = next_offset_;
  ++line_number_;
  if (!line.empty() && line.back() == '\r') {
    line.remove_suffix(1);
  }
  if (static_cast<std::int64_t>(line.size()) > max_line_bytes_) {
    fail<IoError>("{}:{}: the line is longer than {} bytes; split the document", path_, line_number_,
                  max_line_bytes_);
  }
  if (line_offset_ == 0 && line.starts_with(kByteOrderMark)) {
    line.remove_prefix(kByteOrderMark.size());
  }
  begin_ += consumed;
  next_offset_ += static_cast<std::int64_t>(consumed);
  return true;
}

}  // namespace caravan
