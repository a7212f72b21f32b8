#include <fmt/ostream.h>

#include <algorithm>
#include <ostream>
#include <string_view>

#include "caravan/core/utf8.h"
#include "caravan/io/results_file.h"

namespace caravan {
namespace {

void print_indented(std::ostream& out, std::string_view text) {
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    fmt::print(out, "  {}\n", printable(text.substr(0, end), LineEnds::kEscape));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

void print_attributes(std::ostream& out, const RunAttributes& attributes) {
  const ExperimentKey& key = attributes.experiment;
  const auto line = [](const std::string& text) { return printable(text, LineEnds::kEscape); };
  fmt::print(out, "  mode           {}, {}\n", line(attributes.mode), line(attributes.dtype));
  fmt::print(out, "  data set       {}\n", line(key.dataset));
  fmt::print(out, "  world size     {}, swapping {}\n", key.world_size, key.enable_swapping ? "on" : "off");
  fmt::print(out, "  rounds         {} of {} local epoch{}\n", key.rounds, key.local_epochs,
             key.local_epochs == 1 ? "" : "s");
  fmt::print(out, "  learning rate  {}\n", key.lr);
  fmt::print(out, "  seed           {}\n", key.seed);
  fmt::print(out, "  started        {}\n", line(attributes.start_time));
  fmt::print(out, "  ended          {}\n",
             attributes.end_time.empty() ? "not yet, or the run was stopped" : line(attributes.end_time));
  fmt::print(out, "  hosts          {}\n", line(attributes.hosts));
  fmt::print(out, "  commit         {}\n", line(attributes.commit));
}

void print_history(std::ostream& out, const std::vector<HistoryRecord>& history) {
  if (history.empty()) {
    fmt::print(out, "\nNo evaluation yet.\n");
    return;
  }
  fmt::print(out, "\nHistory\n  round        loss  perplexity\n");
  for (const HistoryRecord& row : history) {
    fmt::print(out, "  {:5}  {:10.6f}  {:10.6g}\n", row.round, row.loss, row.perplexity);
  }
}

void print_steps(std::ostream& out, const std::vector<StepRecord>& steps) {
  if (steps.empty()) {
    fmt::print(out, "\nNo steps yet.\n");
    return;
  }
  double tokens = 0.0;
  double seconds = 0.0;
  for (const StepRecord& row : steps) {
    tokens += static_cast<double>(row.tokens);
    seconds += row.seconds;
  }
  fmt::print(out, "\nSteps\n  {} recorded, step {} to {}\n", steps.size(), steps.front().step,
             steps.back().step);
  fmt::print(out, "  loss {:.6g} at the first, {:.6g} at the last\n", steps.front().loss, steps.back().loss);
  fmt::print(out, "  gradient norm {:.6g} at the first, {:.6g} at the last\n", steps.front().grad_norm,
             steps.back().grad_norm);
  fmt::print(out, "  {:.0f} tokens in {:.1f} s", tokens, seconds);
  if (seconds > 0.0) {
    fmt::print(out, ", {:.0f} per second", tokens / seconds);
  }
  fmt::print(out, "\n");
}

}  // namespace

void inspect_results_file(const std::string& path, std::ostream& out) {
  const ResultsContent content = read_results(path);
  fmt::print(out, "{}: results of a run\n", path);
  print_attributes(out, content.attributes);
  print_history(out, content.history);
  print_steps(out, content.steps);
  fmt::print(out, "\nVersions\n");
  print_indented(out, content.attributes.versions);
  fmt::print(out, "\nConfiguration\n");
  print_indented(out, content.attributes.config);
}

}  // namespace caravan
