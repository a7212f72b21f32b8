#include "caravan/train/verify_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "caravan/core/atomic_file.h"
#include "caravan/io/hdf5_file.h"

namespace caravan {
namespace {

/// "layers.*.x" of "layers.3.x".
std::string kind_of(const std::string& name) {
  constexpr std::string_view kLayers = "layers.";
  const auto end = name.find('.', kLayers.size());
  return name.starts_with(kLayers) && end != std::string::npos ? "layers.*" + name.substr(end) : name;
}

/// How far off, in units of what is allowed: what decides between two layers.
double share_of_tolerance(const Difference& difference) {
  if (difference.tolerance == 0.0) {
    return static_cast<double>(difference.unequal);
  }
  return std::isnan(difference.relative) ? HUGE_VAL : difference.relative / difference.tolerance;
}

/// One entry per kind, in the order in which kinds first occur.
std::vector<const Difference*> furthest_of_kinds(const std::vector<Difference>& all) {
  std::vector<const Difference*> furthest;
  for (const Difference& each : all) {
    const auto found = std::find_if(furthest.begin(), furthest.end(), [&](const Difference* other) {
      return kind_of(other->name) == kind_of(each.name);
    });
    if (found == furthest.end()) {
      furthest.push_back(&each);
    } else if (share_of_tolerance(each) > share_of_tolerance(**found)) {
      *found = &each;
    }
  }
  return furthest;
}

std::string table_of(const char* title, const std::vector<Difference>& all) {
  std::string text = fmt::format("  {:<38} {:>16} {:>10} {:>10}  {}\n", title, "mean |difference|",
                                 "relative", "tolerance", "furthest off");
  for (const Difference* each : furthest_of_kinds(all)) {
    const std::string kind = kind_of(each->name);
    text += fmt::format("    {:<36} {:>17.2e} {:>10.1e} {:>10.1e}  {}rank {}{}\n", kind, each->mean_absolute,
                        each->relative, each->tolerance, kind == each->name ? "" : each->name + ", ",
                        each->rank, each->is_within() ? "" : "  DIFFERS");
  }
  return text;
}

std::string weights_text(const std::vector<Difference>& weights) {
  std::string text;
  for (const Difference& each : weights) {
    if (!each.is_within()) {
      text +=
          fmt::format("    {:<36} {} elements differ; {}  DIFFERS\n", each.name, each.unequal, each.detail);
    }
  }
  return text.empty() ? fmt::format("  weights: all {} tensors are each rank's exact part of the whole\n",
                                    weights.size())
                      : "  weights\n" + text;
}

/// The one that differs, or takes more of what it may: each has a tolerance of its own.
const Difference& worse_of(const Difference& a, const Difference& b) {
  if (!a.is_within() || !b.is_within()) {
    return a.is_within() ? b : a;
  }
  return a.relative * b.tolerance >= b.relative * a.tolerance ? a : b;
}

std::string steps_text(const Verification& result) {
  std::string text = fmt::format("  {:<8} {:>14} {:>14} {:>14} {:>14} {:>10} {:>10}\n", "step", "loss",
                                 "one rank", "gradient norm", "one rank", "relative", "tolerance");
  for (std::size_t i = 0; i < result.steps.size(); ++i) {
    const StepComparison& step = result.steps[i];
    const Difference& loss = result.losses.at(2 * i);
    const Difference& norm = result.losses.at(2 * i + 1);
    const Difference& worse = worse_of(loss, norm);
    text +=
        fmt::format("    {:<6} {:>14.8f} {:>14.8f} {:>14.8f} {:>14.8f} {:>10.1e} {:>10.1e}{}\n", step.step,
                    step.loss, step.one_rank_loss, step.grad_norm, step.one_rank_grad_norm, worse.relative,
                    worse.tolerance, loss.is_within() && norm.is_within() ? "" : "  DIFFERS");
  }
  return text;
}

template <class Row, class Value>
std::vector<Value> column(const std::vector<Row>& rows, Value Row::*member) {
  std::vector<Value> values(rows.size());
  std::transform(rows.begin(), rows.end(), values.begin(), [&](const Row& row) { return row.*member; });
  return values;
}

void write_differences(Hdf5File& file, const std::string& group, const std::vector<Difference>& rows) {
  file.create_group(group);
  std::vector<std::int64_t> ranks;
  std::transform(rows.begin(), rows.end(), std::back_inserter(ranks),
                 [](const Difference& row) { return row.rank; });
  file.write(group + "/name", column(rows, &Difference::name));
  file.write(group + "/rank", ranks);
  file.write(group + "/unequal", column(rows, &Difference::unequal));
  file.write(group + "/mean_absolute", column(rows, &Difference::mean_absolute));
  file.write(group + "/relative", column(rows, &Difference::relative));
  file.write(group + "/tolerance", column(rows, &Difference::tolerance));
}

}  // namespace

std::string describe(const Difference& difference) {
  if (difference.tolerance == 0.0) {
    return fmt::format("{} is not the exact part of the whole tensor: {} elements differ; {}",
                       difference.name, difference.unequal, difference.detail);
  }
  return fmt::format(
      "{} differs from the one-rank model: relative difference {:.2e} on rank {}, the tolerance is {:.2e}",
      difference.name, difference.relative, difference.rank, difference.tolerance);
}

std::string describe(const Verification& result, const VerifyAttributes& attributes) {
  std::string text = fmt::format("verify: {} ranks ({}), {}, against the same model on one rank\n",
                                 attributes.ranks, attributes.mesh, attributes.dtype);
  text += weights_text(result.weights);
  text += table_of("outputs of the segments", result.outputs);
  text += "  next tokens that agree:";
  for (const TopAgreement& top : result.top_k) {
    text += fmt::format(" top {} {:.2f} %{}", top.k, 100.0 * top.agreement,
                        &top == &result.top_k.back() ? "\n" : ",");
  }
  text += table_of("gradients", result.gradients);
  text += steps_text(result);
  const Difference* first = result.first_difference();
  return text + (first == nullptr ? "result: the mesh computes the model of one rank\n"
                                  : fmt::format("result: {}\n", describe(*first)));
}

void write_verification(const std::string& path, const Verification& result,
                        const VerifyAttributes& attributes) {
  Hdf5File file = Hdf5File::create(path);
  const Difference* first = result.first_difference();
  file.set_attribute("equal", first == nullptr);
  file.set_attribute("first_difference", first == nullptr ? "" : first->name);
  file.set_attribute("ranks", attributes.ranks);
  for (const auto& [name, value] : {std::pair{"mesh", &attributes.mesh},
                                    {"dtype", &attributes.dtype},
                                    {"config", &attributes.config},
                                    {"commit", &attributes.commit},
                                    {"versions", &attributes.versions},
                                    {"hosts", &attributes.hosts},
                                    {"start_time", &attributes.start_time},
                                    {"end_time", &attributes.end_time}}) {
    file.set_attribute(name, *value);
  }
  write_differences(file, "/weights", result.weights);
  write_differences(file, "/outputs", result.outputs);
  write_differences(file, "/gradients", result.gradients);
  write_differences(file, "/losses", result.losses);
  file.create_group("/top_k");
  file.write("/top_k/k", column(result.top_k, &TopAgreement::k));
  file.write("/top_k/agreement", column(result.top_k, &TopAgreement::agreement));
  file.create_group("/steps");
  file.write("/steps/step", column(result.steps, &StepComparison::step));
  file.write("/steps/loss", column(result.steps, &StepComparison::loss));
  file.write("/steps/one_rank_loss", column(result.steps, &StepComparison::one_rank_loss));
  file.write("/steps/grad_norm", column(result.steps, &StepComparison::grad_norm));
  file.write("/steps/one_rank_grad_norm", column(result.steps, &StepComparison::one_rank_grad_norm));
  write_file_atomically(path, file.bytes());
}

}  // namespace caravan
