#include "model_options.h"

#include "caravan/comm/mpi_session.h"
#include "caravan/comm/self_communicator.h"

namespace caravan::app {

void add_model_options(CLI::App& command, ModelOptions& options) {
  command
      .add_option("--checkpoint", options.checkpoint,
                  "Folder with the weights, Meta's or Hugging Face's layout")
      ->required();
  command.add_option("--tokenizer", options.tokenizer,
                     "tokenizer.model or tokenizer.json; default: the one in the checkpoint's folder");
  command.add_option("--dtype", options.dtype, "Arithmetic")
      ->check(CLI::IsMember({"float32", "float64"}))
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
  command.add_option("--threads", options.threads, "Threads; default: the cores this process may use")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{4096}));
}

OpenedModel open(const ModelOptions& options) {
  OpenedModel opened;
  opened.text = open_text_tools(options.tokenizer, options.checkpoint);
  ModelSection section;
  section.checkpoint = options.checkpoint;
  section.rope_scaling_factor = options.rope_scaling_factor;
  opened.source = open_model(section, opened.text.tokenizer_or_null());
  opened.dtype = options.dtype == "float64" ? DType::kFloat64 : DType::kFloat32;
  return opened;
}

InferenceRanks model_ranks(const ModelOptions& options) {
  if (MpiSession::exists()) {
    return {MpiSession::current().world(), options.pp};
  }
  static SelfCommunicator alone{};
  return {alone, options.pp};
}

}  // namespace caravan::app
