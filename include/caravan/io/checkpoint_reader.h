// Model weights in a folder, in Meta's or Hugging Face's layout, read region by region under Meta's names:
// any rank reads just the part it holds, whatever the files' layout.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "caravan/config/model_config.h"
#include "caravan/config/run_config.h"
#include "caravan/core/shard_spec.h"
#include "caravan/core/tensor_view.h"
#include "caravan/io/llama_names.h"
#include "caravan/io/tensor_source.h"

namespace caravan {

/// kTraining: the parameters of a training checkpoint (io/training_model.h); nothing else writes it.
enum class CheckpointLayout : std::uint8_t { kMeta, kHuggingFace, kTraining };

class CheckpointReader {
 public:
  CheckpointReader() = default;
  virtual ~CheckpointReader() = default;
  CheckpointReader(const CheckpointReader&) = delete;
  CheckpointReader& operator=(const CheckpointReader&) = delete;
  CheckpointReader(CheckpointReader&&) = delete;
  CheckpointReader& operator=(CheckpointReader&&) = delete;

  virtual CheckpointLayout layout() const = 0;
  /// The model the files describe; tie_embeddings is output_tied().
  virtual const ModelConfig& config() const = 0;
  /// Every parameter with its global shape and the files' dtype. A tied output is not listed. A tensor that
  /// is no Llama parameter is listed under its own name, for check_tensors to report.
  virtual const std::vector<TensorInfo>& tensors() const = 0;
  /// Names of tensors() in the order in which the files hold them, by their first parts where tensors have
  /// several: who reads all of them goes through each file once, and the system reads ahead. Of a training
  /// checkpoint, whose tensors are spread over all ranks' files, the order of tensors().
  virtual std::vector<std::string> reading_order() const = 0;
  /// Reads the elements of `region` (global indices, one range per dim) into `destination`, a CPU view of the
  /// region's shape whose last dim has stride 1, converting to its dtype: float64, float32, bfloat16,
  /// float16. Uses the threads of core/parallel_for, each staging at most 4 MiB, 256 KiB of whole rows (one
  /// tensor in all where the file holds it transposed). Rows of wq and wk come in Meta's order. Not
  /// collective; safe from several threads, but not inside a parallel_for. IoError when a file cannot be
  /// read, InternalError for an unknown name or a wrong region.
  virtual void read(const std::string& name, const Region& region, TensorView destination) const = 0;
  /// True when the output layer is the token embedding: its tensor is absent, the same storage, equal byte
  /// for byte, or the caller said so.
  virtual bool output_tied() const = 0;
};

/// Opens Meta's layout (params.json and consolidated.NN.pth), Hugging Face's (config.json and
/// model.safetensors or its index), or a training checkpoint (manifest.json), recognised by the files. `tie`
/// overrides what the tensors say: kUntied gives a model without an output tensor one that equals the
/// embedding. IoError when `folder` has neither or both, and for every damaged file.
std::unique_ptr<CheckpointReader> open_checkpoint(const std::string& folder,
                                                  std::optional<double> rope_scaling_factor,
                                                  Tie tie = Tie::kAuto);

/// The reader's tensors as something to write, in `dtype` or, when null, each in the files' own; `reader`
/// must outlive them.
std::vector<TensorSource> tensor_sources(const CheckpointReader& reader, std::optional<DType> dtype);

/// Compares names and shapes, and whether the types convert; one IoError lists every missing, extra,
/// mis-shaped and mis-typed tensor.
void check_tensors(const CheckpointReader& reader, const std::vector<TensorInfo>& expected);

}  // namespace caravan
