#include "caravan/train/save_model.h"

#include <cstring>
#include <filesystem>

#include "caravan/backend/device_memory.h"
#include "caravan/core/atomic_file.h"
#include "caravan/core/error.h"
#include "caravan/io/checkpoint_writer.h"

namespace caravan {

TensorSource source_of(std::string name, const TensorView& view) {
  CARAVAN_CHECK(view.is_contiguous() && view.rank() >= 1, "{} is written from {}", name, view.str());
  return {.name = std::move(name),
          .shape = view.shape(),
          .dtype = view.dtype(),
          .read_rows = [view](std::int64_t begin, std::int64_t end, std::byte* destination) {
            copy_to_host(view.rows(begin, end), destination);
          }};
}

void save_model(const std::string& folder, const ModelConfig& config, const ParameterSet& parameters,
                const std::optional<TokenizerFile>& tokenizer, const RunRecord& record) {
  std::vector<TensorSource> sources;
  for (const Parameter& parameter : parameters.all()) {
    CARAVAN_CHECK(parameter.shape() == parameter.spec().shape, "{} is a slice, not the whole tensor",
                  parameter.name());
    sources.push_back(source_of(parameter.name(), parameter.stored_value()));
  }
  save_model(folder, config, sources, tokenizer, record);
}

void save_model(const std::string& folder, const ModelConfig& config,
                const std::vector<TensorSource>& sources, const std::optional<TokenizerFile>& tokenizer,
                const RunRecord& record) {
  CheckpointWriteOptions options;
  options.if_exists = IfExists::kReplace;
  options.add_files = [&](const std::string& unfinished) {
    if (tokenizer) {
      write_file_atomically((std::filesystem::path(unfinished) / tokenizer->name).string(), tokenizer->bytes);
    }
    write_run_record(unfinished, record);
  };
  write_meta_checkpoint(folder, config, sources, options);
}

}  // namespace caravan
