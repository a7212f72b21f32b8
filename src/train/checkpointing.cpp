#include "caravan/train/checkpointing.h"

#include <atomic>
#include <exception>
#include <filesystem>
#include <functional>
#include <new>
#include <random>
#include <thread>

#include "caravan/core/checksum.h"
#include "caravan/core/clock.h"
#include "caravan/core/error.h"
#include "caravan/core/log.h"
#include "caravan/io/checkpoint_store.h"
#include "caravan/io/run_folder.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

/// What went wrong on this rank, in words; null when nothing did.
std::optional<std::string> attempt(const std::function<void()>& work) {
  try {
    work();
    return std::nullopt;
  } catch (const std::bad_alloc&) {
    return "out of memory";
  } catch (const std::exception& problem) {
    return problem.what();
  }
}

/// The message of the lowest rank that has one, on every rank; null when none has. Collective.
std::optional<std::string> first_problem(Communicator& world, const std::optional<std::string>& mine) {
  const std::int64_t here = mine ? world.rank() : world.size();
  const std::int64_t first = world.all_reduce_value(here, ReduceOp::kMin);
  if (first == world.size()) {
    return std::nullopt;
  }
  std::string message = mine.value_or("");
  world.broadcast_bytes(message, static_cast<int>(first));
  return first == 0 ? message : fmt::format("rank {}: {}", first, message);
}

/// All ranks go on or every rank throws. `work` itself must not communicate. Collective.
void all_or_none(Communicator& world, const std::function<void()>& work) {
  if (const auto problem = first_problem(world, attempt(work))) {
    throw IoError(*problem);
  }
}

/// Never the same twice: shards of different writes must not pass for one checkpoint.
std::string fresh_id() {
  std::random_device random;
  return checksum_text(static_cast<std::uint64_t>(random()) << 32U | random());
}

/// "; the newest below it is ..." where somebody gave a folder too high up.
std::string hint_for(const std::string& path) {
  for (const std::string& folder : {path, (fs::path(path) / kCheckpointsFolder).string()}) {
    const std::vector<StepFolder> steps = step_folders(folder);
    if (!steps.empty()) {
      return fmt::format("; the newest below it is {}", steps.front().path);
    }
  }
  return "";
}

enum class Naming : std::uint8_t { kByStep, kFree };

std::unique_ptr<ShardedCheckpointReader> open_one(const StepFolder& step, Naming naming) {
  if (naming == Naming::kByStep) {
    return open_step_folder(step);
  }
  if (!has_manifest(step.path)) {
    fail<IoError>("{}: is no training checkpoint, a folder like checkpoints/{} with {} in it{}", step.path,
                  step_folder_name(100), kManifestName, hint_for(step.path));
  }
  return std::make_unique<ShardedCheckpointReader>(step.path);
}

/// Opens it on every rank, each verifying its share. Null, and every rank knows why, when any rank cannot.
/// Collective.
std::unique_ptr<ShardedCheckpointReader> try_to_open(const StepFolder& step, Naming naming,
                                                     Communicator& world,
                                                     std::optional<std::string>& problem) {
  std::unique_ptr<ShardedCheckpointReader> reader;
  problem = first_problem(world, attempt([&] {
                            reader = open_one(step, naming);
                            reader->verify({world.rank(), world.size()});
                          }));
  return problem ? nullptr : std::move(reader);
}

}  // namespace

struct Checkpointing::InFlight {
  InFlight(const TrainingState& of, const ShardIdentity& identity, std::vector<ShardSource> sources)
      : state(of), id(identity.id), step(identity.step), writer(identity, std::move(sources)) {}
  ~InFlight() {
    if (thread.joinable()) {
      thread.join();
    }
  }
  InFlight(const InFlight&) = delete;
  InFlight& operator=(const InFlight&) = delete;
  InFlight(InFlight&&) = delete;
  InFlight& operator=(InFlight&&) = delete;

  /// In the background or not; throws nothing.
  void write() {
    problem = attempt([&] { written = writer.write(); });
    is_written = true;
  }

  TrainingState state;
  std::string id;
  std::int64_t step;
  StopWatch watch;
  std::unique_ptr<OutputFolder> folder;  // rank 0 only
  ShardedCheckpointWriter writer;        // goes before the folder does
  CheckpointTables written;
  std::optional<std::string> problem;
  std::atomic<bool> is_written = false;
  std::thread thread;
};

Checkpointing::Checkpointing(std::string folder, const CheckpointSection& options, Communicator& world)
    : folder_(std::move(folder)), keep_(options.keep), is_async_(options.is_async), world_(world) {}

Checkpointing::~Checkpointing() = default;

void Checkpointing::save(const TrainingState& state, std::vector<ShardSource> sources) {
  finish();
  std::string id = fresh_id();
  world_.broadcast_bytes(id, 0);
  const std::int64_t step =
      world_.all_reduce_value(world_.rank() == 0 ? state.step : std::int64_t{0}, ReduceOp::kMax);
  std::unique_ptr<InFlight> next;
  all_or_none(world_, [&] {
    next = std::make_unique<InFlight>(state, ShardIdentity{id, step, world_.rank()}, std::move(sources));
    if (world_.rank() == 0) {
      next->folder = std::make_unique<OutputFolder>(path_of(step), IfExists::kReplace);
    }
  });
  std::string temporary = next->folder ? next->folder->temporary_path() : "";
  world_.broadcast_bytes(temporary, 0);
  try {
    all_or_none(world_, [&] {
      next->writer.open(temporary);
      if (is_async_) {
        next->writer.stage();
      }
    });
  } catch (...) {  // on every rank alike
    give_up(std::move(next));
    throw;
  }
  in_flight_ = std::move(next);
  if (is_async_) {
    in_flight_->thread = std::thread([flight = in_flight_.get()] { flight->write(); });
  } else {
    in_flight_->write();
    complete();
  }
}

void Checkpointing::poll() {
  if (!in_flight_) {
    return;
  }
  const std::int64_t is_done = in_flight_->is_written ? 1 : 0;
  if (world_.all_reduce_value(is_done, ReduceOp::kMin) == 1) {
    complete();
  }
}

void Checkpointing::finish() {
  if (in_flight_) {
    complete();
  }
}

/// Rank 0 removes the folder once nobody has a file in it, and nobody goes on before it is gone. Collective.
void Checkpointing::give_up(std::unique_ptr<InFlight> flight) {
  if (world_.rank() != 0) {
    flight.reset();
  }
  world_.barrier();
  flight.reset();
  world_.barrier();
}

void Checkpointing::complete() {
  // Owned here: whatever happens, nothing is in flight afterwards and the temporary folder is gone.
  std::unique_ptr<InFlight> flight = std::move(in_flight_);
  if (flight->thread.joinable()) {
    flight->thread.join();
  }
  if (const auto problem = first_problem(world_, flight->problem)) {
    give_up(std::move(flight));
    throw IoError(*problem);
  }
  const std::vector<std::string> reports = world_.gather_bytes(tables_text(flight->written), 0);
  all_or_none(world_, [&] {
    if (world_.rank() == 0) {
      std::vector<CheckpointTables> tables;
      for (std::size_t rank = 0; rank < reports.size(); ++rank) {
        tables.push_back(parse_tables(reports[rank], fmt::format("the report of rank {}", rank)));
      }
      write_manifest(flight->folder->temporary_path(), merge_tables(flight->id, flight->state, tables));
      flight->folder->commit();
    }
  });
  last_saved_ = path_of(flight->step);
  log::info("checkpoint: {} ({:.1f} s{})", last_saved_, flight->watch.seconds(),
            is_async_ ? " in the background" : "");
  if (world_.rank() == 0) {
    if (const auto problem = attempt([&] { keep_newest(folder_, keep_, flight->step); })) {
      log::warning("checkpoint: {}", *problem);  // more of them than wanted; the run can go on
    }
  }
}

std::string Checkpointing::path_of(std::int64_t step) const {
  return (fs::path(folder_) / step_folder_name(step)).string();
}

std::unique_ptr<ShardedCheckpointReader> find_latest_checkpoint(const std::string& folder,
                                                                Communicator& world) {
  // One list for all ranks: others may see a shared folder a moment later.
  std::vector<StepFolder> steps;
  all_or_none(world, [&] { steps = world.rank() == 0 ? step_folders(folder) : std::vector<StepFolder>(); });
  const auto count = static_cast<std::size_t>(
      world.all_reduce_value(static_cast<std::int64_t>(steps.size()), ReduceOp::kMax));
  steps.resize(count);
  for (StepFolder& step : steps) {
    world.broadcast_bytes(step.path, 0);
    step.step = world.all_reduce_value(step.step, ReduceOp::kMax);
    std::optional<std::string> problem;
    if (auto reader = try_to_open(step, Naming::kByStep, world, problem)) {
      return reader;
    }
    if (world.rank() == 0) {
      log::warning("checkpoint: {} is not used: {}", step.path, *problem);
    }
  }
  return nullptr;
}

std::unique_ptr<ShardedCheckpointReader> open_checked_checkpoint(const std::string& path,
                                                                 Communicator& world) {
  std::optional<std::string> problem;
  auto reader = try_to_open({path, 0}, Naming::kFree, world, problem);
  if (!reader) {
    throw IoError(*problem);
  }
  return reader;
}

}  // namespace caravan
