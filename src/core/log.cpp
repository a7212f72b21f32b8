#include "caravan/core/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <charconv>
#include <memory>
#include <utility>

#include "caravan/core/error.h"
#include "caravan/core/utf8.h"

namespace caravan::log {
namespace {

struct State {
  int rank = 0;
  bool speaking = true;
  std::shared_ptr<spdlog::logger> logger;
  std::function<void()> before_message;
};

State& state() {
  static State instance = [] {
    State fresh;
    fresh.logger = spdlog::stderr_color_st("caravan");
    fresh.logger->set_pattern("%^%v%$");
    return fresh;
  }();
  return instance;
}

bool names_rank(std::string_view ranks, int rank, int size) {
  if (ranks == "all") {
    return true;
  }
  bool found = rank == 0 && ranks.empty();
  while (!ranks.empty()) {
    const auto comma = ranks.find(',');
    const std::string_view item = ranks.substr(0, comma);
    int value = -1;
    const auto [end, status] = std::from_chars(item.data(), item.data() + item.size(), value);
    if (status != std::errc() || end != item.data() + item.size() || value < 0) {
      fail<ConfigError>("--log-ranks / LOG_RANK: cannot read '{}'; give ranks like 0 or 0,2 or all", item);
    }
    if (value >= size) {
      fail<ConfigError>("--log-ranks / LOG_RANK: there is no rank {}; the ranks are 0 to {}", value,
                        size - 1);
    }
    found = found || value == rank;
    ranks = comma == std::string_view::npos ? std::string_view() : ranks.substr(comma + 1);
  }
  return found;
}

}  // namespace

void configure(int rank, int size, std::string_view ranks) {
  state().rank = rank;
  state().speaking = names_rank(ranks, rank, size);
  if (rank != 0 || (!ranks.empty() && ranks != "0")) {
    state().logger->set_pattern(fmt::format("%^[rank {}] %v%$", rank));
  }
}

bool is_speaking() {
  return state().speaking;
}

void set_before_message(std::function<void()> hook) {
  state().before_message = std::move(hook);
}

void write(Level level, const std::string& text) {
  const std::string message = printable(text, LineEnds::kKeep);  // it may quote a file
  if (state().before_message) {
    state().before_message();
  }
  switch (level) {
    case Level::kDebug:
      state().logger->debug(message);
      break;
    case Level::kInfo:
      state().logger->info(message);
      break;
    case Level::kWarning:
      state().logger->warn("warning: {}", message);
      break;
    case Level::kError:
      state().logger->error("error: {}", message);
      break;
  }
}

}  // namespace caravan::log
