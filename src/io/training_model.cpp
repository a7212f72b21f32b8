#include "caravan/io/training_model.h"

#include <mutex>

#include "caravan/core/error.h"
#include "caravan/io/sharded_checkpoint_reader.h"
#include "json_file.h"
#include "model_json.h"

namespace caravan {
namespace {

constexpr const char* kOptimizer = "optimizer.";

class TrainingModel final : public CheckpointReader {
 public:
  TrainingModel(const std::string& folder, std::optional<double> rope_scaling_factor, Tie tie)
      : reader_(folder) {
    const auto& extra = reader_.state().extra;
    const auto shape = extra.find(kTrainingModelKey);
    if (shape == extra.end()) {
      fail<IoError>("{}: does not say what model it holds; only resume can use it", folder);
    }
    const std::string where = fmt::format("{}: state: {}", folder, kTrainingModelKey);
    config_ = parse_params_json(parse_json_object(shape->second, where), where, rope_scaling_factor);
    config_.tie_embeddings = reader_.find(kOutputName) == nullptr;
    for (const GlobalTensor& tensor : reader_.manifest().tables.tensors) {
      if (!tensor.name.starts_with(kOptimizer) && (tensor.name != kOutputName || tie != Tie::kTied)) {
        tensors_.push_back({tensor.name, tensor.shape, tensor.dtype});
      }
    }
    if (tie == Tie::kUntied && config_.tie_embeddings) {
      if (const GlobalTensor* embedding = reader_.find(kEmbeddingName)) {
        tensors_.push_back({kOutputName, embedding->shape, embedding->dtype});
        reads_embedding_ = true;
      }
    }
    config_.tie_embeddings = tie == Tie::kAuto ? config_.tie_embeddings : tie == Tie::kTied;
  }

  CheckpointLayout layout() const override { return CheckpointLayout::kTraining; }
  const ModelConfig& config() const override { return config_; }
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  /// Every tensor is spread over all ranks' files.
  std::vector<std::string> reading_order() const override {
    std::vector<std::string> names;
    for (const TensorInfo& tensor : tensors_) {
      names.push_back(tensor.name);
    }
    return names;
  }
  bool output_tied() const override { return config_.tie_embeddings; }
  void read(const std::string& name, const Region& region, TensorView destination) const override {
    const std::lock_guard lock(mutex_);
    reader_.read(reads_embedding_ && name == kOutputName ? kEmbeddingName : name, region, destination);
  }

 private:
  mutable std::mutex mutex_;
  mutable ShardedCheckpointReader reader_;  // remembers what it has checked
  ModelConfig config_;
  std::vector<TensorInfo> tensors_;
  bool reads_embedding_ = false;
};

}  // namespace

std::unique_ptr<CheckpointReader> open_training_model(const std::string& folder,
                                                      std::optional<double> rope_scaling_factor, Tie tie) {
  return std::make_unique<TrainingModel>(folder, rope_scaling_factor, tie);
}

}  // namespace caravan
