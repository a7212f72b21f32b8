#include "caravan/train/training_checkpoint.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>

#include "caravan/backend/device_memory.h"
#include "caravan/core/checksum.h"
#include "caravan/core/error.h"
#include "caravan/io/params_json.h"
#include "caravan/io/training_model.h"

namespace caravan {
namespace {

constexpr const char* kEpochKey = "data.epoch";
constexpr const char* kBatchKey = "data.batch";
// Of dtype float16.
constexpr const char* kLossScaleKey = "loss_scale";
constexpr const char* kGoodStepsKey = "loss_scale.good_steps";
constexpr const char* kSkippedKey = "loss_scale.skipped";
constexpr std::array kMoments = {"exp_avg", "exp_avg_sq"};  // PyTorch's words

std::string moment_name(std::size_t moment, const std::string& parameter) {
  return fmt::format("optimizer.{}.{}", kMoments.at(moment), parameter);
}

/// This rank among those that hold the same elements of a tensor.
struct Copy {
  std::int64_t index = 0;
  std::int64_t count = 1;
};

Copy copy_of(const ShardSpec& spec, const Coordinates& at) {
  Copy copy{at.index("dp_replicate"), at.count("dp_replicate")};
  const auto times = [&](const char* axis) {
    copy = {copy.index * at.count(axis) + at.index(axis), copy.count * at.count(axis)};
  };
  times("cp_copies");
  if (spec.is_split("kv")) {
    times("kv_copies");
  } else if (!spec.is_split("tp")) {
    times("tp");
  }
  return copy;
}

/// The rows of a shard that one of its copies writes. Small tensors are not cut, but do not all go to the
/// same rank either: `number` turns the ranks.
Range rows_to_write(const ParameterShard& shard, const Copy& copy, std::int64_t number) {
  constexpr std::int64_t kSmallBytes = std::int64_t{1} << 20U;
  const std::int64_t rows = shard.value.dim(0);
  const std::int64_t parts =
      std::clamp<std::int64_t>(shard.value.bytes() / kSmallBytes, 1, std::min(copy.count, rows));
  const std::int64_t part = (copy.index + number) % copy.count;
  return part < parts ? shard_rows(rows, part, parts) : Range{};
}

TensorView as_bytes(const TensorView& view) {
  return {view.raw(), DType::kUInt8, {view.bytes()}, view.device()};
}

ShardSource source_of_rows(const std::string& name, const ParameterShard& shard, const TensorView& values,
                           Range rows) {
  CARAVAN_CHECK(values.is_contiguous(), "{} is saved from {}", name, values.str());
  Region region = shard.region;
  const std::int64_t first = region.at(0).begin;
  region[0] = {first + rows.begin, first + rows.end};
  const TensorView written = values.rows(rows.begin, rows.end);
  ShardSource source{.tensor = {name, shard.parameter->spec().shape, values.dtype()},
                     .region = std::move(region),
                     .data = nullptr,
                     .read = {}};
  if (values.device().kind == DeviceKind::kCpu) {
    source.data = static_cast<const std::byte*>(written.raw());
  } else {
    source.read = [bytes = as_bytes(written)](std::int64_t offset, std::span<std::byte> destination) {
      const auto size = static_cast<std::int64_t>(destination.size());
      copy_to_host(bytes.rows(offset, offset + size), destination.data());
    };
  }
  return source;
}

template <class Number = std::int64_t>
Number number_in(const ShardedCheckpointReader& checkpoint, const char* key, Number least = 0) {
  const auto& extra = checkpoint.state().extra;
  const auto found = extra.find(key);
  const std::string text = found == extra.end() ? "" : found->second;
  Number value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc() || end != text.data() + text.size() || !(value >= least) ||
      value > std::numeric_limits<Number>::max()) {
    fail<IoError>("{}: '{}' is '{}' where a number is expected; no run can go on from it",
                  checkpoint.folder(), key, text);
  }
  return value;
}

}  // namespace

std::vector<ShardSource> checkpoint_sources(const TrainingStore& store, const Adamw& optimizer,
                                            const ModelConfig& model, const Coordinates& at) {
  std::map<std::string, std::int64_t> number_of;  // the same on all ranks, which may not have all tensors
  for (const ParameterShape& parameter : parameter_shapes(model)) {
    number_of.emplace(parameter.name, static_cast<std::int64_t>(3 * number_of.size()));
  }
  std::vector<ShardSource> sources;
  const auto add = [&](const std::string& name, const ParameterShard& shard, const TensorView& values,
                       std::int64_t turn) {
    const ParameterSpec& spec = shard.parameter->spec();
    if (spec.name == "tok_embeddings.weight" && at.index("pp") > 0) {
      return;  // a tied output layer: the first stage has it
    }
    const Range rows = rows_to_write(shard, copy_of(spec.shard, at), number_of.at(spec.name) + turn);
    if (rows.size() > 0) {
      sources.push_back(source_of_rows(name, shard, values, rows));
    }
  };
  std::map<const Parameter*, TensorView> masters;
  for (const Adamw::Entry& entry : optimizer.entries()) {
    if (entry.master.defined()) {
      masters.emplace(entry.shard.parameter, entry.master);
    }
  }
  for (const ParameterShard& shard : store.shards()) {
    if (shard.value.numel() > 0) {
      const auto master = masters.find(shard.parameter);
      add(shard.parameter->name(), shard, master == masters.end() ? shard.value : master->second, 0);
    }
  }
  for (const Adamw::Entry& entry : optimizer.entries()) {
    if (entry.m.numel() > 0) {
      add(moment_name(0, entry.shard.parameter->name()), entry.shard, entry.m, 1);
      add(moment_name(1, entry.shard.parameter->name()), entry.shard, entry.v, 2);
    }
  }
  return sources;
}

std::string data_text(const Dataset& dataset) {
  return fmt::format("{} samples of {} bytes", dataset.size(), dataset.sample_bytes());
}

std::string data_checksum_key(const char* data_key) {
  return fmt::format("{}.checksum", data_key);
}

TrainingState training_state(const RunInputs& inputs, SynchronousRun& run, const TrainingPosition& position,
                             const RunRecorder* recorder) {
  TrainingState state;
  state.step = position.step;
  state.optimizer_step = run.trainer().optimizer().steps();
  state.data_position = position.samples;
  state.seed = inputs.config.seed;
  state.ranks = run.world().size();
  state.mesh = describe(run.layout().sizes);
  state.extra = {{kEpochKey, fmt::format("{}", position.data.epoch)},
                 {kBatchKey, fmt::format("{}", position.data.batch)},
                 {kTrainingModelKey, to_params_json(inputs.model.config)}};
  if (inputs.config.dtype == DType::kFloat16) {
    const UpdateState& update = run.trainer().optimizer().update_state();
    state.extra.emplace(kLossScaleKey, fmt::format("{}", update.loss_scale));
    state.extra.emplace(kGoodStepsKey, fmt::format("{}", update.good_steps));
    state.extra.emplace(kSkippedKey, fmt::format("{}", update.skipped));
  }
  const auto add_data = [&](const char* key, const std::optional<Dataset>& dataset) {
    if (dataset) {
      state.extra.emplace(key, data_text(*dataset));
      state.extra.emplace(data_checksum_key(key), checksum_text(dataset->checksum()));
    }
  };
  add_data(kTrainDataKey, inputs.train);
  add_data(kEvalDataKey, inputs.eval);
  if (recorder != nullptr) {
    const RunRecord record = recorder->record(position.step, {});
    state.config = record.config;
    state.commit = record.commit;
    state.step_records = record.step_records;
    state.history_records = static_cast<std::int64_t>(recorder->history().size());
  }
  return state;
}

TrainingPosition training_position(const ShardedCheckpointReader& checkpoint) {
  return {.step = checkpoint.state().step,
          .data = {number_in(checkpoint, kEpochKey), number_in(checkpoint, kBatchKey)},
          .samples = checkpoint.state().data_position};
}

namespace {

void read_to(ShardedCheckpointReader& checkpoint, const std::string& name, const Region& region,
             const TensorView& destination) {
  HostDraft draft(destination);
  checkpoint.read(name, region, draft.view());
  draft.commit();
}

}  // namespace

void restore(SynchronousRun& run, ShardedCheckpointReader& checkpoint) {
  run.load([&](const Context&, const std::vector<ParameterShard>& shards) {
    for (const ParameterShard& shard : shards) {
      read_to(checkpoint, shard.parameter->name(), shard.region, shard.value);
    }
  });
  Adamw& optimizer = run.trainer().optimizer();
  for (const Adamw::Entry& entry : optimizer.entries()) {
    read_to(checkpoint, moment_name(0, entry.shard.parameter->name()), entry.shard.region, entry.m);
    if (entry.master.defined()) {
      read_to(checkpoint, entry.shard.parameter->name(), entry.shard.region, entry.master);
    }
    read_to(checkpoint, moment_name(1, entry.shard.parameter->name()), entry.shard.region, entry.v);
  }
  optimizer.keep_masters();
  UpdateState update{.updates = checkpoint.state().optimizer_step};
  if (run.model().dtype() == DType::kFloat16) {
    update.loss_scale = number_in(checkpoint, kLossScaleKey, 1.0);
    update.good_steps = number_in(checkpoint, kGoodStepsKey);
    update.skipped = number_in(checkpoint, kSkippedKey);
  }
  optimizer.set_update_state(update);
  run.trainer().set_steps(checkpoint.state().step);
  checkpoint.close_files();
}

void check_tensors(const ShardedCheckpointReader& checkpoint, const ModelConfig& model,
                   const RunConfig& config) {
  const DType moments = accumulation_dtype(config.dtype);
  // Masters stand in the place of 16-bit values.
  const DType values = config.optimizer.master_weights ? moments : config.dtype;
  std::size_t expected = 0;
  const auto check = [&](const std::string& name, const Shape& shape, DType dtype) {
    ++expected;
    const GlobalTensor* tensor = checkpoint.find(name);
    const GlobalTensor wanted{name, shape, dtype};
    if (tensor == nullptr || *tensor != wanted) {
      fail<IoError>("resume: {}: {} is {} there and {} {} in the model: it is the state of another model",
                    checkpoint.folder(), name,
                    tensor == nullptr ? std::string("missing")
                                      : fmt::format("{} {}", dtype_name(tensor->dtype), tensor->shape.str()),
                    dtype_name(dtype), shape.str());
    }
  };
  for (const ParameterShape& parameter : parameter_shapes(model)) {
    check(parameter.name, parameter.shape, values);
    check(moment_name(0, parameter.name), parameter.shape, moments);
    check(moment_name(1, parameter.name), parameter.shape, moments);
  }
  if (const std::size_t found = checkpoint.manifest().tables.tensors.size(); found != expected) {
    fail<IoError>(
        "resume: {}: holds {} tensors where the model and its optimizer have {}: it is the state of "
        "another model",
        checkpoint.folder(), found, expected);
  }
}

}  // namespace caravan
