#include "bench_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <type_traits>

#include "caravan/core/atomic_file.h"
#include "caravan/core/error.h"
#include "caravan/federated/run_plan.h"
#include "caravan/io/hdf5_file.h"

namespace caravan::app {
namespace {

const char* source_name(Source source) {
  return source == Source::kMeasured ? "measured" : "modelled";
}

std::string milliseconds(double seconds) {
  return fmt::format("{:.2f}", 1e3 * seconds);
}

std::string workload_text(const WorkloadSize& size) {
  return size.kind == WorkloadKind::kLinear
             ? fmt::format("two linear layers [{0}, {0}], {1} rows a step", size.hidden, size.batch)
             : fmt::format(
                   "{} Llama block{} of hidden size {} between an embedding and a head of 256 tokens, {} "
                   "rows "
                   "of {} tokens a step",
                   size.layers, size.layers == 1 ? "" : "s", size.hidden, size.batch, size.seq_len);
}

std::string fixed_table(const BenchResults& results) {
  std::string text =
      "| division | ranks | p50 ms | p95 ms | p99 ms | rows/s | sent per step and rank | messages | memory "
      "per rank | "
      "times |\n|---|---|---|---|---|---|---|---|---|---|\n";
  for (const Measurement& each : results.fixed) {
    const bool is_measured = each.source == Source::kMeasured;
    const auto tail = [&](double percent) {
      return is_measured ? milliseconds(percentile(each.seconds, percent)) : std::string("–");
    };
    text += fmt::format("| {} | {} | {} | {} | {} | {:.1f} | {} | {} | {} | {} |\n",
                        division_name(each.division), each.ranks, milliseconds(percentile(each.seconds, 50)),
                        tail(95), tail(99), each.rows_per_second(), format_bytes(each.sent_bytes), each.calls,
                        format_bytes(each.memory_bytes), source_name(each.source));
  }
  return text;
}

std::string growing_table(const BenchResults& results) {
  std::string text = "| division | ranks | rows | p50 ms | efficiency | |\n|---|---|---|---|---|---|\n";
  for (const Measurement& each : results.growing) {
    text += fmt::format("| {} | {} | {} | {} | {:.1f} % | {} |\n", division_name(each.division), each.ranks,
                        each.batch, milliseconds(percentile(each.seconds, 50)),
                        100.0 * efficiency(results, each), source_name(each.source));
  }
  return text;
}

std::string memory_text(const BenchResults& results) {
  return results.size.kind == WorkloadKind::kBlock
             ? "Memory is that of the plan (`caravan train --dry-run`), whose parts are what is allocated.\n"
             : "Memory is what was allocated.\n";
}

std::string model_text(const BenchResults& results) {
  if (!results.link) {
    return fmt::format("Every rank had one of the {} cores. {}", results.cores, memory_text(results));
  }
  return fmt::format(
      "Up to {} ranks, which had a core each, times were measured. Beyond, bytes and messages come "
      "from a step that all ranks really made, and times from one rank's: its work divided among the ranks, "
      "an update "
      "where weights are not divided whole, and the messages one after another with nothing hidden behind "
      "work, each {:.1f} µs and {} a second, as sums over two ranks of this machine took. {}",
      results.timed_ranks, 1e6 * results.link->latency_seconds,
      format_bytes(static_cast<std::int64_t>(results.link->bytes_per_second)), memory_text(results));
}

std::string pipeline_text(const BenchResults& results) {
  if (results.size.kind == WorkloadKind::kLinear) {
    return "CP and PP are not in the table: without attention, dividing tokens is DDP, and two linear layers "
           "make no stages.\n";
  }
  std::string waits;
  for (const Measurement& each : results.fixed) {
    if (each.division == Division::kPp && each.ranks > 1) {
      waits += fmt::format("{}{:.2f} on {} ranks", waits.empty() ? "" : ", ", each.waiting_share, each.ranks);
    }
  }
  std::string text = fmt::format("Every division trains the same {} block{}.", results.size.layers,
                                 results.size.layers == 1 ? "" : "s");
  if (!waits.empty()) {
    text += fmt::format(
        " PP runs 1f1b in the micro-batches that training takes by default; while its pipeline fills and "
        "drains, a rank waits, in units of its own work: {}. Modelled times have that in them.",
        waits);
  }
  return text + "\n";
}

struct Column {
  const char* name;
  double (*value)(const BenchResults&, const Measurement&);
};

constexpr std::array kColumns = {
    Column{"p50_seconds",
           [](const BenchResults&, const Measurement& m) { return percentile(m.seconds, 50); }},
    Column{"p95_seconds",
           [](const BenchResults&, const Measurement& m) { return percentile(m.seconds, 95); }},
    Column{"p99_seconds",
           [](const BenchResults&, const Measurement& m) { return percentile(m.seconds, 99); }},
    Column{"rows_per_second", [](const BenchResults&, const Measurement& m) { return m.rows_per_second(); }},
};

void write_table(Hdf5File& file, const std::string& group, const BenchResults& results,
                 const std::vector<Measurement>& rows) {
  file.create_group(group);
  const auto column = [&](auto value) {
    std::vector<std::invoke_result_t<decltype(value), const Measurement&>> values(rows.size());
    std::transform(rows.begin(), rows.end(), values.begin(), value);
    return values;
  };
  using Int = std::int64_t;
  file.write(group + "/division", column([](const Measurement& m) { return division_name(m.division); }));
  file.write(group + "/times",
             column([](const Measurement& m) { return std::string(source_name(m.source)); }));
  file.write(group + "/ranks", column([](const Measurement& m) { return Int{m.ranks}; }));
  file.write(group + "/rows", column([](const Measurement& m) { return m.batch; }));
  file.write(group + "/messages", column([](const Measurement& m) { return m.calls; }));
  file.write(group + "/sent_bytes", column([](const Measurement& m) { return m.sent_bytes; }));
  file.write(group + "/memory_bytes", column([](const Measurement& m) { return m.memory_bytes; }));
  for (const Column& each : kColumns) {
    std::vector<double> values(rows.size());
    std::transform(rows.begin(), rows.end(), values.begin(),
                   [&](const Measurement& m) { return each.value(results, m); });
    file.write(group + "/" + each.name, values);
  }
}

}  // namespace

double efficiency(const BenchResults& results, const Measurement& growing) {
  const auto one = std::find_if(results.growing.begin(), results.growing.end(), [&](const Measurement& each) {
    return each.division == growing.division && each.ranks == 1;
  });
  CARAVAN_CHECK(one != results.growing.end(), "{} was not measured on one rank",
                division_name(growing.division));
  return percentile(one->seconds, 50) / percentile(growing.seconds, 50);
}

std::string markdown(const BenchResults& results) {
  std::string text = fmt::format("# Ways of dividing a step: {}\n\n", workload_text(results.size));
  text += fmt::format("    {}\n\n{}; {} steps each, one thread a rank, float32, AdamW; {}. {}.\n\n",
                      results.command, results.hardware, results.steps, results.commit, results.time);
  text +=
      "Every step is timed from a barrier to the end of the slowest rank. What is sent counts as in "
      "`comm/traffic.h`: an all_reduce its tensor once. One rank has nothing to divide: it was measured "
      "once.\n\n";
  text +=
      fmt::format("## The same work on more ranks\n\n{}\n## The same work per rank (weak scaling)\n\n{}\n{}",
                  fixed_table(results), growing_table(results), model_text(results));
  return text + '\n' + pipeline_text(results);
}

void write_bench(const std::string& path, const BenchResults& results) {
  Hdf5File file = Hdf5File::create(path);
  file.set_attribute("workload", results.size.kind == WorkloadKind::kLinear ? "linear" : "block");
  file.set_attribute("hidden", results.size.hidden);
  file.set_attribute("batch", results.size.batch);
  file.set_attribute("seq_len", results.size.seq_len);
  file.set_attribute("layers", results.size.layers);
  file.set_attribute("steps", results.steps);
  file.set_attribute("cores", std::int64_t{results.cores});
  file.set_attribute("latency_seconds", results.link ? results.link->latency_seconds : 0.0);
  file.set_attribute("bytes_per_second", results.link ? results.link->bytes_per_second : 0.0);
  file.set_attribute("command", results.command);
  file.set_attribute("hardware", results.hardware);
  file.set_attribute("commit", results.commit);
  file.set_attribute("versions", results.versions);
  file.set_attribute("hosts", results.hosts);
  file.set_attribute("time", results.time);
  write_table(file, "/fixed", results, results.fixed);
  write_table(file, "/growing", results, results.growing);
  std::vector<double> efficiencies;
  for (const Measurement& each : results.growing) {
    efficiencies.push_back(efficiency(results, each));
  }
  file.write("/growing/efficiency", efficiencies);
  write_file_atomically(path, file.bytes());
}

}  // namespace caravan::app
