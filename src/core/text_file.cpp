#include "caravan/core/text_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "caravan/core/error.h"

namespace caravan {
namespace {

struct Descriptor {
  int number;
  ~Descriptor() {
    if (number >= 0) {
      ::close(number);
    }
  }
};

}  // namespace

std::string read_text_file(const std::string& path, std::int64_t limit_bytes) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  struct stat status {};
  if (file.number < 0 || ::fstat(file.number, &status) != 0) {
    fail<IoError>("{}: cannot be read: {}", path, std::strerror(errno));
  }
  if (!S_ISREG(status.st_mode)) {
    fail<IoError>("{}: is {}, not a regular file", path,
                  S_ISDIR(status.st_mode) ? "a folder" : "a device or pipe");
  }
  // Files of /proc say 0, and any file may grow: what counts is what is read.
  std::string text(static_cast<std::size_t>(std::clamp<std::int64_t>(status.st_size, 0, limit_bytes)) + 1,
                   '\0');
  std::size_t done = 0;
  for (;;) {
    const ssize_t count = ::read(file.number, text.data() + done, text.size() - done);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      fail<IoError>("{}: cannot be read: {}", path, std::strerror(errno));
    }
    done += static_cast<std::size_t>(count);
    if (static_cast<std::int64_t>(done) > limit_bytes) {
      fail<IoError>("{}: has more than the {} bytes a file of this kind may have", path, limit_bytes);
    }
    if (count == 0) {
      text.resize(done);
      return text;
    }
    if (done == text.size()) {
      text.resize(
          static_cast<std::size_t>(std::min(limit_bytes + 1, static_cast<std::int64_t>(2 * text.size()))));
    }
  }
}

}  // namespace caravan
