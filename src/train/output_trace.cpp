#include "caravan/train/output_trace.h"

#include <algorithm>
#include <numeric>

#include "caravan/backend/device_memory.h"
#include "caravan/core/error.h"

namespace caravan {
namespace {

constexpr std::string_view kEmbedding = "tok_embeddings";
constexpr std::string_view kLogits = "logits";

bool is_segment(std::string_view name) {
  return name == kEmbedding || name.ends_with(".attention") || name.ends_with(".feed_forward");
}

}  // namespace

TensorView SegmentOutput::view() {
  const auto items = static_cast<std::int64_t>(bytes.size() / dtype_bytes(dtype));
  return {bytes.data(), dtype, {columns == 0 ? 0 : items / columns, columns}};
}

std::vector<std::string> output_names(const ModelConfig& model) {
  std::vector<std::string> names = {std::string(kEmbedding)};
  for (std::int64_t layer = 0; layer < model.n_layers; ++layer) {
    names.push_back(fmt::format("layers.{}.attention", layer));
    names.push_back(fmt::format("layers.{}.feed_forward", layer));
  }
  names.emplace_back(kLogits);
  return names;
}

void OutputTrace::observe(std::string_view name, const TensorView& value) {
  if (is_segment(name)) {
    keep(std::string(name), value);
  } else if (name == output_name_) {
    keep(std::string(kLogits), value);
  }
}

void OutputTrace::keep(std::string name, const TensorView& value) {
  CARAVAN_CHECK(value.is_contiguous() && value.rank() == 2, "the output of {} is {}", name, value.str());
  auto found = std::find_if(outputs_.begin(), outputs_.end(),
                            [&](const SegmentOutput& output) { return output.name == name; });
  if (found == outputs_.end()) {
    outputs_.push_back(
        {.name = std::move(name), .columns = value.dim(1), .dtype = value.dtype(), .bytes = {}});
    found = outputs_.end() - 1;
  }
  const std::size_t before = found->bytes.size();
  found->bytes.resize(before + static_cast<std::size_t>(value.bytes()));
  copy_to_host(value, found->bytes.data() + before);
}

TokenRowNumbers token_rows(const Batch& batch, const SynchronousLayout& layout) {
  Batch numbered = batch;
  std::iota(numbered.ids.begin(), numbered.ids.end(), 0);
  TokenRowNumbers numbers;
  for (const Batch& part : micro_batches(numbered, layout.geometry, batch_place(layout.at),
                                         static_cast<std::int32_t>(MatrixPart::kNoRow))) {
    numbers.full.insert(numbers.full.end(), part.ids.begin(), part.ids.end());
    const std::int64_t share = part.n_tokens() / layout.at.count("sp");
    const auto begin = part.ids.begin() + static_cast<std::ptrdiff_t>(layout.at.index("sp") * share);
    numbers.stream.insert(numbers.stream.end(), begin, begin + static_cast<std::ptrdiff_t>(share));
  }
  return numbers;
}

std::int64_t rows_of_one_pass(const SynchronousLayout& layout) {
  return layout.geometry.micro_batch * layout.geometry.data_ranks * layout.batches_held();
}

std::vector<SegmentOutput> trace_outputs(SynchronousRun& run, const Batch& batch, std::int32_t pad_id) {
  const SynchronousLayout& layout = run.layout();
  OutputTrace trace(run.model().config().tie_embeddings ? "tok_embeddings.weight" : "output.weight");
  const std::vector<Batch> parts = micro_batches(batch, layout.geometry, batch_place(layout.at), pad_id);
  run.trainer().steps_executor().observe_forward(parts, trace);
  return std::move(trace.outputs());
}

TraceBytes trace_bytes(const SynchronousLayout& layout, const ModelConfig& model, std::int64_t rows) {
  const std::int64_t tokens = rows * layout.limits.seq_len;
  const auto item = static_cast<std::int64_t>(dtype_bytes(layout.model.dtype));
  std::int64_t segments = 0;
  bool has_head = false;
  for (const Range& layers : stage_layers(model, layout.model)) {
    segments += 2 * layers.size() + (layers.begin == 0 ? 1 : 0);
    has_head = has_head || layers.end == model.n_layers;
  }
  const std::int64_t stream = segments * model.hidden_size * tokens / layout.at.count("sp") * item;
  const std::int64_t columns = (model.vocab_size + layout.at.count("tp") - 1) / layout.at.count("tp");
  const std::int64_t logits = has_head ? tokens * columns * item : 0;
  return {.all = stream + logits, .logits = logits};
}

}  // namespace caravan
