#include "model_options.h"

#include <fmt/format.h>

#include "caravan/comm/mpi_session.h"
#include "caravan/comm/self_communicator.h"
#include "caravan/config/run_config_fields.h"
#include "failure.h"

namespace caravan::app {

void add_model_options(CLI::App& command, ModelOptions& options) {
  command
      .add_option("--checkpoint", options.checkpoint,
                  "Folder with the weights, Meta's or Hugging Face's layout")
      ->required();
  command.add_option("--tokenizer", options.tokenizer,
                     "tokenizer.model or tokenizer.json; default: the one in the checkpoint's folder");
  command
      .add_option("--device", options.device_name,
                  "cpu, cuda (one GPU per rank), or auto: GPUs where every rank has one")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command.add_option("--dtype", options.dtype, "Weights and activations; 16 bits on GPUs")
      ->check(CLI::IsMember({"float32", "float64", "bfloat16", "float16"}))
      ->capture_default_str();
  command
      .add_option("--rope-scaling-factor", options.rope_scaling_factor,
                  "Overrides the factor of scaled rotary embeddings")
      ->check(CLI::Range(1e-3, 1e6));
  command
      .add_option(
          "--pp", options.pp,
          "Cut the layers into this many stages, one after another on the ranks; the ranks of a stage "
          "divide heads, MLP rows and vocabulary")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str();
  command
      .add_option("--threads", options.threads,
                  "Threads; default: OPENBLAS_NUM_THREADS, else the cores this process may use")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{4096}));
  add_timeout_option(command, options.timeout_seconds);
}

namespace {

/// The value of a name that the command line has checked.
template <class E>
E named_value(const std::string& name) {
  for (const auto& [known, value] : EnumNames<E>::kNames) {
    if (known == name) {
      return value;
    }
  }
  fail<InternalError>("no value is named {}", name);
}

}  // namespace

DeviceChoice ModelOptions::device() const {
  return named_value<DeviceChoice>(device_name);
}

OpenedModel open(const ModelOptions& options) {
  OpenedModel opened;
  opened.text = open_text_tools(options.tokenizer, options.checkpoint);
  ModelSection section;
  section.checkpoint = options.checkpoint;
  section.rope_scaling_factor = options.rope_scaling_factor;
  opened.source = open_model(section, opened.text.tokenizer_or_null());
  opened.dtype = named_value<DType>(options.dtype);
  const auto device = options.device();
  if ((accumulation_dtype(opened.dtype) != opened.dtype && device == DeviceChoice::kCpu) ||
      (opened.dtype == DType::kFloat64 && device == DeviceChoice::kCuda)) {
    fail<ConfigError>("--dtype {} with --device {}: bfloat16 and float16 are for GPUs, float64 for CPUs",
                      options.dtype, options.device_name);
  }
  return opened;
}

InferenceRanks model_ranks(const ModelOptions& options) {
  if (MpiSession::exists()) {
    return {MpiSession::current().world(), options.pp};
  }
  static SelfCommunicator alone{};
  return {alone, options.pp};
}

void require_model_memory(const ComputeDevice& device, const OpenedModel& opened,
                          const InferenceModel::Room& room, const InferenceRanks& ranks,
                          const std::string& smaller) {
  if (!device.is_gpu()) {
    return;
  }
  const InferenceNeeds needs =
      InferenceModel::measure(opened.source.config, opened.dtype, device.backend().kind(), room, ranks);
  RankMemory memory{.device = {{"weights", needs.weight_bytes},
                               {"keys and values", needs.cache_bytes},
                               {"scratch", needs.step_bytes},
                               {"rotary tables and batch", needs.table_bytes},
                               {"messages between stages", needs.message_bytes}},
                    .host = {}};
  add_library_memory(device, memory);
  const bool is_wide = accumulation_dtype(opened.dtype) == opened.dtype;
  require_device_memory(device, memory,
                        fmt::format("{}{}, or start more ranks with a GPU each, which share the model",
                                    smaller, is_wide ? ", give --dtype bfloat16" : ""),
                        ranks.all);
}

}  // namespace caravan::app
