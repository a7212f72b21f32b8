// Whole tensors from the parts that the ranks of a mesh hold, one tensor at a time: for writing a model.
#pragma once

#include <vector>

#include "caravan/backend/buffer.h"
#include "caravan/comm/communicator.h"
#include "caravan/io/tensor_source.h"
#include "caravan/model/parameter.h"

namespace caravan {

class ModelGather {
 public:
  static constexpr int kRoot = 0;

  /// `shards` of this rank; every element of the model is in a first copy on exactly one rank. Collective.
  ModelGather(Communicator& world, std::vector<ParameterSpec> model, std::vector<ParameterShard> shards);

  /// On the root: sources that gather a tensor when its first row is asked for. They must be read in order,
  /// each once, while the other ranks run `contribute`.
  std::vector<TensorSource> sources();
  /// On the other ranks: sends this rank's parts of every tensor, in order.
  void contribute();
  /// Tensor `index` whole on the root, undefined elsewhere; valid until the next call. Collective.
  TensorView gather(std::size_t index);

 private:
  TensorView mine(const std::string& name) const;

  Communicator& world_;
  std::vector<ParameterSpec> model_;
  std::vector<ParameterShard> shards_;
  DType dtype_;
  std::vector<std::vector<Region>> regions_;  // on the root: [rank][tensor], empty where a rank has no part
  Buffer whole_;
  Buffer parts_;
};

}  // namespace caravan
