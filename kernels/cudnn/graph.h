// A graph of cuDNN operations under construction, its plan, and its execution (cuDNN's backend interface).
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "kernels/cudnn/library.h"

namespace caravan::cudnn {

using Sizes = std::array<std::int64_t, 4>;

/// Strides of a packed tensor of these sizes.
Sizes packed(const Sizes& dims);

/// Throws DeviceError unless status is success: the call, where it stands, what it was about, cuDNN's name
/// for the error and its last message, and what to do.
void check(const Table& table, int status, const char* call, const char* what,
           const char* file = __builtin_FILE(), int line = __builtin_LINE());

/// Owns a descriptor; setters throw DeviceError.
class OwnedDescriptor {
 public:
  OwnedDescriptor(const Table& table, Kind kind);
  ~OwnedDescriptor();
  OwnedDescriptor(const OwnedDescriptor&) = delete;
  OwnedDescriptor& operator=(const OwnedDescriptor&) = delete;
  OwnedDescriptor(OwnedDescriptor&& other) noexcept;
  OwnedDescriptor& operator=(OwnedDescriptor&&) = delete;

  Descriptor get() const { return descriptor_; }
  void set(Attribute name, Value type, std::int64_t count, const void* values);
  void set(Attribute name, Type value);
  void set(Attribute name, std::int64_t value);
  void set(Attribute name, bool value);
  void set(Attribute name, const OwnedDescriptor& value);
  void finalize(const char* what);

 private:
  const Table* table_;
  Descriptor descriptor_ = nullptr;
};

class Graph {
 public:
  struct Tensor {
    std::size_t number = 0;  // of the graph's tensors; its unique id is one more
    Sizes dims{};
  };

  explicit Graph(std::shared_ptr<const Library> library);

  /// A tensor in device memory that is given at each execution.
  Tensor stored(const Sizes& dims, const Sizes& strides, Type type);
  /// A number, the same in every execution.
  Tensor number(float value);

  Tensor pointwise(Pointwise mode, const std::vector<Tensor>& inputs, Type type = Type::kFloat,
                   Type compute = Type::kFloat);
  /// Index along an axis, as int32 of x's shape.
  Tensor index(const Tensor& x, std::int64_t axis);
  void pointwise_into(Pointwise mode, const std::vector<Tensor>& inputs, const Tensor& y,
                      Type compute = Type::kFloat, std::int64_t axis = -1);
  /// x reduced to dims: along axes where they are 1, and over groups of heads.
  Tensor reduce(Reduction mode, const Tensor& x, const Sizes& dims);
  void reduce_into(Reduction mode, const Tensor& x, const Tensor& y);
  /// [.., M, K] · [.., K, N]; b's heads serve groups of a's.
  Tensor matmul(const Tensor& a, const Tensor& b, Type type = Type::kFloat);
  void matmul_into(const Tensor& a, const Tensor& b, const Tensor& c);
  /// The same memory under other sizes and strides.
  Tensor reshape(const Tensor& x, const Sizes& dims, const Sizes& strides, Type type);

  std::size_t operations() const { return operations_.size(); }

  /// The best plan that cuDNN's heuristics give and that can be built. Throws DeviceError when there is none.
  void build(Handle handle);
  std::int64_t workspace_bytes() const { return workspace_bytes_; }

  struct Binding {
    Tensor tensor;
    const void* data = nullptr;
  };
  /// After build, on the handle's stream. All stored tensors are bound.
  void execute(Handle handle, const std::vector<Binding>& bindings, void* workspace) const;

 private:
  Tensor add_tensor(const Sizes& dims, const Sizes& strides, Type type, bool is_virtual, bool is_by_value);
  bool try_build(Handle handle, const OwnedDescriptor& graph, Heuristic mode);

  std::shared_ptr<const Library> library_;
  const Table& table_;
  std::vector<OwnedDescriptor> tensors_;
  std::vector<OwnedDescriptor> parts_;  // of operations
  std::vector<OwnedDescriptor> operations_;
  struct Number {
    std::int64_t id;
    float value;
  };
  std::deque<Number> numbers_;
  std::unique_ptr<OwnedDescriptor> graph_, config_, plan_;
  std::int64_t workspace_bytes_ = 0;
};

}  // namespace caravan::cudnn
