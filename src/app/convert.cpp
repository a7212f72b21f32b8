// caravan convert: a checkpoint folder from one layout to the other, or split for tensor parallelism
#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <memory>

#include "caravan/core/clock.h"
#include "caravan/core/error.h"
#include "caravan/io/checkpoint_reader.h"
#include "caravan/io/checkpoint_writer.h"
#include "caravan/io/meta_parts.h"
#include "choice.h"
#include "commands.h"

namespace caravan::app {
namespace {

struct ConvertOptions {
  std::string in;
  std::string out;
  std::optional<CheckpointLayout> to;
  std::optional<std::int64_t> tp;
  std::optional<DType> dtype;
  Tie tie = Tie::kAuto;
  std::optional<double> rope_scaling_factor;
  bool overwrite = false;
};

const std::map<std::string, CheckpointLayout> kLayouts = {{"meta", CheckpointLayout::kMeta},
                                                          {"hf", CheckpointLayout::kHuggingFace}};
const std::map<std::string, DType> kDtypes = {{"float64", DType::kFloat64},
                                              {"float32", DType::kFloat32},
                                              {"bfloat16", DType::kBFloat16},
                                              {"float16", DType::kFloat16}};
const std::map<std::string, Tie> kTies = {
    {"auto", Tie::kAuto}, {"true", Tie::kTied}, {"false", Tie::kUntied}};

constexpr std::array kTokenizerFiles = {"tokenizer.model", "tokenizer.json", "tokenizer_config.json",
                                        "special_tokens_map.json"};

std::vector<std::string> tokenizer_files(const std::string& folder) {
  std::vector<std::string> found;
  for (const char* name : kTokenizerFiles) {
    const std::filesystem::path path = std::filesystem::path(folder) / name;
    if (std::filesystem::is_regular_file(path)) {
      found.push_back(path.string());
    }
  }
  return found;
}

/// True when `path` lies somewhere below `folder`; both canonical.
bool is_inside(const std::filesystem::path& path, const std::filesystem::path& folder) {
  return std::search(path.begin(), path.end(), folder.begin(), folder.end()) == path.begin() &&
         path != folder;
}

void convert(const ConvertOptions& options) {
  const StopWatch watch;
  // Absolute first: the canonical form of a relative path that does not exist yet stays relative.
  const auto in = std::filesystem::weakly_canonical(std::filesystem::absolute(options.in));
  const auto out = std::filesystem::weakly_canonical(std::filesystem::absolute(options.out));
  // The folder itself may be rewritten (--overwrite): it is replaced when the new one is complete.
  if (is_inside(in, out) || is_inside(out, in)) {
    fail<ConfigError>("--out {} and --in {} lie one in the other; write to a folder of its own", options.out,
                      options.in);
  }
  if (!options.to && !options.tp) {
    fail<ConfigError>(
        "nothing to convert to: give --to meta, --to hf, or --tp N for Meta's layout in N files");
  }
  const bool is_meta = options.to.value_or(CheckpointLayout::kMeta) == CheckpointLayout::kMeta;
  const std::int64_t parts = options.tp.value_or(1);
  if (!is_meta && parts != 1) {
    fail<ConfigError>(
        "--tp {} is for Meta's layout; Hugging Face's files hold whole tensors: use --to meta, or leave --tp "
        "out",
        parts);
  }
  const auto reader = open_checkpoint(options.in, options.rope_scaling_factor, options.tie);
  const ModelConfig& config = reader->config();
  check_tensors(*reader, expected_tensors(config, DType::kFloat32));
  check_meta_parts(config, parts);
  const std::vector<TensorSource> sources = tensor_sources(*reader, options.dtype);
  CheckpointWriteOptions write;
  write.if_exists = options.overwrite ? IfExists::kReplace : IfExists::kFail;
  write.copied_files = tokenizer_files(options.in);
  if (is_meta) {
    std::vector<std::vector<TensorSource>> files;
    for (std::int64_t part = 0; part < parts; ++part) {
      files.push_back(part_sources(*reader, options.dtype, part, parts));
    }
    write_meta_parts(options.out, config, files, write);
  } else {
    write_hf_checkpoint(options.out, config, sources, write);
  }
  std::int64_t bytes = 0;
  for (const TensorSource& source : sources) {
    bytes += source.bytes();
  }
  const std::string split = parts > 1 ? fmt::format(" in {} parts", parts) : "";
  fmt::print("{}: {} layout{}, {} tensors, {} parameters, {} bytes of {}, {} tokenizer files, {:.1f} s\n",
             options.out, is_meta ? "Meta" : "Hugging Face", split, sources.size(), parameter_count(config),
             bytes, dtype_name(sources.front().dtype), write.copied_files.size(), watch.seconds());
}

}  // namespace

void add_convert_command(CLI::App& program) {
  auto options = std::make_shared<ConvertOptions>();
  CLI::App* command =
      program.add_subcommand("convert", "write a checkpoint in Meta's or Hugging Face's layout");
  command->add_option("--in,-i", options->in, "folder to read, either layout, recognised by its files")
      ->required();
  command->add_option("--out,-o", options->out, "folder to write")->required();
  command->add_option("--to", options->to, "layout to write: meta or hf; with --tp: meta")
      ->transform(choice_of(kLayouts))
      ->option_text("{meta,hf}");
  command->add_option(
      "--tp", options->tp,
      "split into this many files consolidated.NN.pth, one per tensor-parallel rank; 1 merges");
  command
      ->add_option("--dtype", options->dtype, "element type to write; default: as in the files, bit for bit")
      ->transform(choice_of(kDtypes))
      ->option_text("{float64,float32,bfloat16,float16}");
  command->add_option("--tie-embeddings", options->tie, "whether the output layer is the token embedding")
      ->transform(choice_of(kTies))
      ->option_text("{auto,true,false}");
  command->add_option("--rope-scaling-factor", options->rope_scaling_factor,
                      "factor of scaled rotary embeddings where params.json does not say it");
  command->add_flag("--overwrite", options->overwrite, "replace --out when it exists");
  command->footer(
      "Tokenizer files are copied unchanged.\n"
      "Examples:\n"
      "  caravan convert --in Llama-3.2-1B/original --out llama-hf --to hf\n"
      "  caravan convert --in llama-hf --out llama-meta --to meta --dtype float32\n"
      "  caravan convert --in llama-meta --out llama-meta-8 --tp 8");
  command->callback([options] { convert(*options); });
}

}  // namespace caravan::app
