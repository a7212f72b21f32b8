#include "caravan/io/round_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "caravan/core/atomic_file.h"
#include "caravan/core/error.h"

namespace caravan {
namespace {

std::string line_of(const HistoryRecord& record) {
  return fmt::format("round {} loss {} perplexity {}\n", record.round, record.loss, record.perplexity);
}

}  // namespace

std::string round_log_name(std::int64_t world_size, std::int64_t rounds) {
  return fmt::format("eval_res_llama32_ws{}_r{}.txt", world_size, rounds);
}

std::string checkpoint_folder_name(const std::string& name, std::int64_t world_size, double lr,
                                   std::int64_t round) {
  if (name.empty() || name.find('/') != std::string::npos) {
    fail<ConfigError>("output.name '{}' cannot begin a folder's name; give a name without '/'", name);
  }
  return fmt::format("{}_ws{}_lr{}_round{}", name, world_size, lr, round);
}

RoundLog::RoundLog(const std::string& path, std::span<const HistoryRecord> history) : path_(path) {
  std::string text;
  for (const HistoryRecord& record : history) {
    text += line_of(record);
  }
  write_file_atomically(path, text);
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (descriptor_ < 0) {
    fail<IoError>("{}: cannot be opened for appending: {}", path_, std::strerror(errno));
  }
}

RoundLog::~RoundLog() {
  ::close(descriptor_);
}

void RoundLog::append(const HistoryRecord& record) {
  const std::string line = line_of(record);
  const ssize_t written = ::write(descriptor_, line.data(), line.size());
  if (written != static_cast<ssize_t>(line.size()) || ::fsync(descriptor_) != 0) {
    fail<IoError>("{}: the line of round {} cannot be written: {}; check the free space", path_, record.round,
                  written < 0 || written == static_cast<ssize_t>(line.size()) ? std::strerror(errno)
                                                                              : "the disk is full");
  }
}

}  // namespace caravan
