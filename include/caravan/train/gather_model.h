// Whole tensors from the parts that the ranks of a mesh hold, one tensor at a time: for writing a model.
#pragma once

#include <optional>
#include <vector>

#include "caravan/backend/buffer.h"
#include "caravan/backend/device_memory.h"
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

  /// Most memory that the root takes on a mesh where it stands at `at`: a whole tensor, and of those whose
  /// columns are cut a second one; none where it has everything. The copy of its own part that a device makes
  /// necessary is not counted.
  static std::int64_t root_bytes(const std::vector<ParameterSpec>& model, const Coordinates& at, DType dtype);

 private:
  TensorView mine(const std::string& name) const;
  TensorView gather_rows(std::size_t index);
  TensorView gather_columns(std::size_t index);

  Communicator& world_;
  std::vector<ParameterSpec> model_;
  std::vector<ParameterShard> shards_;
  DType dtype_;
  std::vector<std::vector<Region>> regions_;  // on the root: [rank][tensor], empty where a rank has no part
  Buffer whole_;
  Buffer parts_;
  std::optional<HostCopy> own_;  // this rank's part of the tensor that is gathered
  TensorView last_;              // what gather gave
};

}  // namespace caravan
