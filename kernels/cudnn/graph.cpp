#include "kernels/cudnn/graph.h"

#include <fmt/format.h>

#include <string_view>
#include <utility>

#include "caravan/core/error.h"

namespace caravan::cudnn {

Sizes packed(const Sizes& dims) {
  return {dims[1] * dims[2] * dims[3], dims[2] * dims[3], dims[3], 1};
}

namespace {

/// By the thousands of cuDNN 9's status codes.
const char* remedy(int status) {
  switch (status / 1000) {
    case 1:
      return "cuDNN's libraries do not fit each other, the driver or this GPU; install one whole cuDNN 9 and "
             "name its folder in CARAVAN_CUDNN, or set attention: own";
    case 5:
      return "an earlier kernel can be at fault: run again with --sync-kernels (CARAVAN_SYNC_KERNELS=1) to "
             "have it named, or set attention: own";
    default:
      return "set attention: own for Caravan's kernels, or try another cuDNN 9";
  }
}

}  // namespace

void check(const Table& table, int status, const char* call, const char* what, const char* file, int line) {
  if (status == kSuccess) {
    return;
  }
  char message[512] = {};
  table.GetLastErrorString(message, sizeof(message) - 1);
  const std::string_view path = file;
  fail<DeviceError>("cudnn{} ({}:{}), {}: {} ({}) {}; {}", call, path.substr(path.rfind('/') + 1), line, what,
                    table.GetErrorString(status), status, message, remedy(status));
}

OwnedDescriptor::OwnedDescriptor(const Table& table, Kind kind) : table_(&table) {
  check(table, table.BackendCreateDescriptor(static_cast<int>(kind), &descriptor_), "BackendCreateDescriptor",
        "a descriptor");
}
OwnedDescriptor::~OwnedDescriptor() {
  if (descriptor_ != nullptr) {
    table_->BackendDestroyDescriptor(descriptor_);
  }
}
OwnedDescriptor::OwnedDescriptor(OwnedDescriptor&& other) noexcept
    : table_(other.table_), descriptor_(std::exchange(other.descriptor_, nullptr)) {}

void OwnedDescriptor::set(Attribute name, Value type, std::int64_t count, const void* values) {
  const int attribute = static_cast<int>(name);
  const int status =
      table_->BackendSetAttribute(descriptor_, attribute, static_cast<int>(type), count, values);
  if (status != kSuccess) {
    check(*table_, status, "BackendSetAttribute", fmt::format("attribute {}", attribute).c_str());
  }
}
void OwnedDescriptor::set(Attribute name, Type value) {
  set(name, Value::kDataType, 1, &value);
}
void OwnedDescriptor::set(Attribute name, std::int64_t value) {
  set(name, Value::kInt64, 1, &value);
}
void OwnedDescriptor::set(Attribute name, bool value) {
  set(name, Value::kBoolean, 1, &value);
}
void OwnedDescriptor::set(Attribute name, const OwnedDescriptor& value) {
  const Descriptor descriptor = value.get();
  set(name, Value::kDescriptor, 1, &descriptor);
}
void OwnedDescriptor::finalize(const char* what) {
  check(*table_, table_->BackendFinalize(descriptor_), "BackendFinalize", what);
}

Graph::Graph(std::shared_ptr<const Library> library)
    : library_(std::move(library)), table_(library_->table()) {}

Graph::Tensor Graph::add_tensor(const Sizes& dims, const Sizes& strides, Type type, bool is_virtual,
                                bool is_by_value) {
  constexpr std::int64_t kAlignment = 16;
  OwnedDescriptor& tensor = tensors_.emplace_back(table_, Kind::kTensor);
  tensor.set(Attribute::kTensorType, type);
  tensor.set(Attribute::kTensorDims, Value::kInt64, 4, dims.data());
  tensor.set(Attribute::kTensorStrides, Value::kInt64, 4, strides.data());
  tensor.set(Attribute::kTensorId, static_cast<std::int64_t>(tensors_.size()));
  tensor.set(Attribute::kTensorAlignment, kAlignment);
  if (is_virtual) {
    tensor.set(Attribute::kTensorIsVirtual, true);
  }
  if (is_by_value) {
    tensor.set(Attribute::kTensorIsByValue, true);
  }
  tensor.finalize("a tensor");
  return {tensors_.size() - 1, dims};
}

Graph::Tensor Graph::stored(const Sizes& dims, const Sizes& strides, Type type) {
  return add_tensor(dims, strides, type, false, false);
}

Graph::Tensor Graph::number(float value) {
  const Sizes one = {1, 1, 1, 1};
  const Tensor tensor = add_tensor(one, one, Type::kFloat, false, true);
  numbers_.push_back({static_cast<std::int64_t>(tensor.number) + 1, value});
  return tensor;
}

Graph::Tensor Graph::pointwise(Pointwise mode, const std::vector<Tensor>& inputs, Type type, Type compute) {
  const Tensor y = add_tensor(inputs[0].dims, packed(inputs[0].dims), type, true, false);
  pointwise_into(mode, inputs, y, compute);
  return y;
}

Graph::Tensor Graph::index(const Tensor& x, std::int64_t axis) {
  const Tensor y = add_tensor(x.dims, packed(x.dims), Type::kInt32, true, false);
  pointwise_into(Pointwise::kIndex, {x}, y, Type::kFloat, axis);
  return y;
}

void Graph::pointwise_into(Pointwise mode, const std::vector<Tensor>& inputs, const Tensor& y, Type compute,
                           std::int64_t axis) {
  OwnedDescriptor& how = parts_.emplace_back(table_, Kind::kPointwise);
  how.set(Attribute::kPointwiseMode, Value::kPointwiseMode, 1, &mode);
  how.set(Attribute::kPointwisePrecision, compute);
  if (axis >= 0) {
    how.set(Attribute::kPointwiseAxis, axis);
  }
  how.finalize("a pointwise operation");
  OwnedDescriptor& operation = operations_.emplace_back(table_, Kind::kPointwiseOperation);
  operation.set(Attribute::kPointwiseDescriptor, how);
  constexpr Attribute kInputs[] = {Attribute::kPointwiseX, Attribute::kPointwiseB, Attribute::kPointwiseT};
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    operation.set(kInputs[i], tensors_[inputs[i].number]);
  }
  operation.set(Attribute::kPointwiseY, tensors_[y.number]);
  const float one = 1.0F;
  operation.set(Attribute::kPointwiseAlpha1, Value::kFloat, 1, &one);
  operation.set(Attribute::kPointwiseAlpha2, Value::kFloat, 1, &one);
  operation.finalize("a pointwise operation of the graph");
}

Graph::Tensor Graph::reduce(Reduction mode, const Tensor& x, const Sizes& dims) {
  const Tensor y = add_tensor(dims, packed(dims), Type::kFloat, true, false);
  reduce_into(mode, x, y);
  return y;
}

void Graph::reduce_into(Reduction mode, const Tensor& x, const Tensor& y) {
  OwnedDescriptor& how = parts_.emplace_back(table_, Kind::kReduction);
  how.set(Attribute::kReductionType, Type::kFloat);
  how.set(Attribute::kReductionOperator, Value::kReductionOperator, 1, &mode);
  how.finalize("a reduction");
  OwnedDescriptor& operation = operations_.emplace_back(table_, Kind::kReductionOperation);
  operation.set(Attribute::kReductionDescriptor, how);
  operation.set(Attribute::kReductionX, tensors_[x.number]);
  operation.set(Attribute::kReductionY, tensors_[y.number]);
  operation.finalize("a reduction of the graph");
}

Graph::Tensor Graph::matmul(const Tensor& a, const Tensor& b, Type type) {
  const Sizes dims = {a.dims[0], a.dims[1], a.dims[2], b.dims[3]};
  const Tensor c = add_tensor(dims, packed(dims), type, true, false);
  matmul_into(a, b, c);
  return c;
}

void Graph::matmul_into(const Tensor& a, const Tensor& b, const Tensor& c) {
  OwnedDescriptor& how = parts_.emplace_back(table_, Kind::kMatmul);
  how.set(Attribute::kMatmulType, Type::kFloat);
  how.finalize("a product");
  OwnedDescriptor& operation = operations_.emplace_back(table_, Kind::kMatmulOperation);
  operation.set(Attribute::kMatmulDescriptor, how);
  operation.set(Attribute::kMatmulA, tensors_[a.number]);
  operation.set(Attribute::kMatmulB, tensors_[b.number]);
  operation.set(Attribute::kMatmulC, tensors_[c.number]);
  operation.finalize("a product of the graph");
}

Graph::Tensor Graph::reshape(const Tensor& x, const Sizes& dims, const Sizes& strides, Type type) {
  const Tensor y = add_tensor(dims, strides, type, true, false);
  OwnedDescriptor& operation = operations_.emplace_back(table_, Kind::kReshapeOperation);
  operation.set(Attribute::kReshapeX, tensors_[x.number]);
  operation.set(Attribute::kReshapeY, tensors_[y.number]);
  operation.finalize("a reshape of the graph");
  return y;
}

void Graph::build(Handle handle) {
  graph_ = std::make_unique<OwnedDescriptor>(table_, Kind::kOperationGraph);
  std::vector<Descriptor> operations;
  for (const OwnedDescriptor& operation : operations_) {
    operations.push_back(operation.get());
  }
  graph_->set(Attribute::kGraphOperations, Value::kDescriptor, static_cast<std::int64_t>(operations.size()),
              operations.data());
  graph_->set(Attribute::kGraphHandle, Value::kHandle, 1, &handle);
  graph_->finalize("the graph");
  if (!try_build(handle, *graph_, Heuristic::kBest) && !try_build(handle, *graph_, Heuristic::kFallback)) {
    fail<DeviceError>(
        "cuDNN {} has no kernel for this attention on this GPU; set attention: own, or try another cuDNN 9",
        library_->version());
  }
}

bool Graph::try_build(Handle handle, const OwnedDescriptor& graph, Heuristic mode) {
  constexpr std::int64_t kMost = 8;
  OwnedDescriptor heuristic(table_, Kind::kEngineHeuristic);
  heuristic.set(Attribute::kHeuristicGraph, graph);
  heuristic.set(Attribute::kHeuristicMode, Value::kHeuristicMode, 1, &mode);
  if (table_.BackendFinalize(heuristic.get()) != kSuccess) {
    return false;
  }
  std::vector<OwnedDescriptor> configs;
  std::vector<Descriptor> raw;
  for (std::int64_t i = 0; i < kMost; ++i) {
    raw.push_back(configs.emplace_back(table_, Kind::kEngineConfig).get());
  }
  std::int64_t count = 0;
  check(table_,
        table_.BackendGetAttribute(heuristic.get(), static_cast<int>(Attribute::kHeuristicResults),
                                   static_cast<int>(Value::kDescriptor), kMost, &count, raw.data()),
        "BackendGetAttribute", "engines");
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    auto plan = std::make_unique<OwnedDescriptor>(table_, Kind::kExecutionPlan);
    plan->set(Attribute::kPlanHandle, Value::kHandle, 1, &handle);
    plan->set(Attribute::kPlanConfig, configs[i]);
    if (table_.BackendFinalize(plan->get()) != kSuccess) {
      continue;  // not on this GPU, or not with what it has
    }
    std::int64_t got = 0;
    check(table_,
          table_.BackendGetAttribute(plan->get(), static_cast<int>(Attribute::kPlanWorkspaceBytes),
                                     static_cast<int>(Value::kInt64), 1, &got, &workspace_bytes_),
          "BackendGetAttribute", "scratch memory");
    config_ = std::make_unique<OwnedDescriptor>(std::move(configs[i]));
    plan_ = std::move(plan);
    return true;
  }
  return false;
}

void Graph::execute(Handle handle, const std::vector<Binding>& bindings, void* workspace) const {
  std::vector<std::int64_t> ids;
  std::vector<const void*> pointers;
  for (const Binding& binding : bindings) {
    ids.push_back(static_cast<std::int64_t>(binding.tensor.number) + 1);
    pointers.push_back(binding.data);
  }
  for (const Number& number : numbers_) {
    ids.push_back(number.id);
    pointers.push_back(&number.value);
  }
  OwnedDescriptor pack(table_, Kind::kVariantPack);
  const auto count = static_cast<std::int64_t>(ids.size());
  pack.set(Attribute::kPackIds, Value::kInt64, count, ids.data());
  pack.set(Attribute::kPackPointers, Value::kPointer, count, pointers.data());
  pack.set(Attribute::kPackWorkspace, Value::kPointer, 1, &workspace);
  pack.finalize("the pointers of a graph");
  check(table_, table_.BackendExecute(handle, plan_->get(), pack.get()), "BackendExecute", "attention");
}

}  // namespace caravan::cudnn
