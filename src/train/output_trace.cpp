#include "caravan/train/output_trace.h"

#include <algorithm>
#include <numeric>

#include "caravan/core/error.h"

namespace caravan {
namespace {

constexpr std::string_view kEmbedding = "tok_embeddings";

bool is_block_segment(std::string_view name) {
  return name.ends_with(".attention") || name.ends_with(".feed_forward");
}

}  // namespace

TensorView SegmentOutput::view() {
  const auto items = static_cast<std::int64_t>(bytes.size() / dtype_bytes(dtype));
  return {bytes.data(), dtype, {columns == 0 ? 0 : items / columns, columns}};
}

void OutputTrace::observe(std::string_view name, const TensorView& value) {
  if (is_block_segment(name)) {
    keep(std::string(name), value);
  } else if (name.starts_with(kEmbedding) && !has_embedding_) {
    has_embedding_ = true;
    keep(std::string(kEmbedding), value);
  } else if (name == output_name_) {
    keep("logits", value);
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
  const auto* begin = static_cast<const std::byte*>(value.raw());
  found->bytes.insert(found->bytes.end(), begin, begin + value.bytes());
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
  return layout.geometry.micro_batch * layout.geometry.data_ranks;
}

std::vector<SegmentOutput> trace_outputs(SynchronousRun& run, const Batch& batch, std::int32_t pad_id) {
  const SynchronousLayout& layout = run.layout();
  OutputTrace trace(run.model().config().tie_embeddings ? "tok_embeddings.weight" : "output.weight");
  for (const Batch& part : micro_batches(batch, layout.geometry, batch_place(layout.at), pad_id)) {
    trace.begin_pass();
    run.trainer().steps_executor().observe_forward({&part, 1}, trace);
  }
  return std::move(trace.outputs());
}

TraceBytes trace_bytes(const SynchronousLayout& layout, const ModelConfig& model, std::int64_t rows) {
  const std::int64_t tokens = rows * layout.limits.seq_len;
  const auto item = static_cast<std::int64_t>(dtype_bytes(layout.model.dtype));
  const std::int64_t stream =
      (2 * model.n_layers + 1) * model.hidden_size * tokens / layout.at.count("sp") * item;
  const std::int64_t columns = (model.vocab_size + layout.at.count("tp") - 1) / layout.at.count("tp");
  return {.all = stream + tokens * columns * item, .logits = tokens * columns * item};
}

}  // namespace caravan
