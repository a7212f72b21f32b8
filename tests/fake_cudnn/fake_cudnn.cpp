// A cuDNN for tests: what Caravan calls of its interface, on host memory. Graphs are not run as one kernel
// but one operation after the other, in double, by what cuDNN's manual says of each; tensors are rounded to
// their type. FAKE_CUDNN_VERSION is what it says of itself (91900 when unset); FAKE_CUDNN_FAIL names what
// fails: a function (Create, BackendExecute) or "plan", so that there is no kernel for any graph.
// FAKE_CUDNN_WORKSPACE: bytes that the plans made from here on want.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "caravan/core/dtype.h"
#include "kernels/cudnn/abi.h"

using namespace caravan::cudnn;

namespace {

constexpr int kNotInitialized = 1001;
constexpr int kBadParameter = 2000;
constexpr int kNotSupported = 3000;
using Sizes = std::array<std::int64_t, 4>;

struct Object {
  Kind kind;
  bool is_final = false;
  std::map<int, std::vector<std::int64_t>> numbers{};  // by attribute; descriptors and pointers too
};

std::int64_t number(const Object& object, Attribute name, std::int64_t otherwise = 0) {
  const auto found = object.numbers.find(static_cast<int>(name));
  return found == object.numbers.end() ? otherwise : found->second.at(0);
}
Object* part(const Object& object, Attribute name) {
  return reinterpret_cast<Object*>(number(object, name));
}
Sizes sizes(const Object& tensor, Attribute name) {
  const std::vector<std::int64_t>& values = tensor.numbers.at(static_cast<int>(name));
  return {values.at(0), values.at(1), values.at(2), values.at(3)};
}

/// Memory of tensors during an execution.
class Memory {
 public:
  explicit Memory(const std::map<std::int64_t, void*>& stored) : stored_(stored) {}

  double get(const Object& tensor, const Sizes& at) {
    const std::int64_t offset = offset_of(tensor, at);
    if (number(tensor, Attribute::kTensorIsVirtual) != 0) {
      return virtual_of(tensor).at(static_cast<std::size_t>(offset));
    }
    const void* data = stored_.at(number(tensor, Attribute::kTensorId));
    switch (type(tensor)) {
      case Type::kBFloat16:
        return static_cast<double>(caravan::to_float(static_cast<const caravan::BFloat16*>(data)[offset]));
      case Type::kHalf:
        return static_cast<double>(caravan::to_float(static_cast<const caravan::Float16*>(data)[offset]));
      default:
        return static_cast<double>(static_cast<const float*>(data)[offset]);
    }
  }
  void set(const Object& tensor, const Sizes& at, double value) {
    const std::int64_t offset = offset_of(tensor, at);
    if (number(tensor, Attribute::kTensorIsVirtual) != 0) {
      virtual_of(tensor).at(static_cast<std::size_t>(offset)) = rounded(tensor, value);
      return;
    }
    void* data = stored_.at(number(tensor, Attribute::kTensorId));
    switch (type(tensor)) {
      case Type::kBFloat16:
        static_cast<caravan::BFloat16*>(data)[offset] = caravan::to_bfloat16(static_cast<float>(value));
        break;
      case Type::kHalf:
        static_cast<caravan::Float16*>(data)[offset] = caravan::to_float16(static_cast<float>(value));
        break;
      default:
        static_cast<float*>(data)[offset] = static_cast<float>(value);
    }
  }
  /// y's memory is x's.
  void reshape(const Object& x, const Object& y) {
    const Sizes dims = sizes(y, Attribute::kTensorDims);
    const Sizes from = sizes(x, Attribute::kTensorDims);
    const Sizes strides = sizes(x, Attribute::kTensorStrides);
    // The index in x whose offset is that of `at` in y: strides are those of x in another order.
    Sizes order{};
    const Sizes own = sizes(y, Attribute::kTensorStrides);
    for (std::size_t i = 0; i < 4; ++i) {
      for (std::size_t j = 0; j < 4; ++j) {
        order[i] = own[i] == strides[j] && dims[i] == from[j] ? static_cast<std::int64_t>(j) : order[i];
      }
    }
    for_each(dims, [&](const Sizes& at) {
      Sizes in_x{};
      for (std::size_t i = 0; i < 4; ++i) {
        in_x[static_cast<std::size_t>(order[i])] = at[i];
      }
      set(y, at, get(x, in_x));
    });
  }

  template <class Body>
  static void for_each(const Sizes& dims, const Body& body) {
    Sizes at{};
    for (at[0] = 0; at[0] < dims[0]; ++at[0]) {
      for (at[1] = 0; at[1] < dims[1]; ++at[1]) {
        for (at[2] = 0; at[2] < dims[2]; ++at[2]) {
          for (at[3] = 0; at[3] < dims[3]; ++at[3]) {
            body(at);
          }
        }
      }
    }
  }

 private:
  static Type type(const Object& tensor) { return static_cast<Type>(number(tensor, Attribute::kTensorType)); }
  static double rounded(const Object& tensor, double value) {
    switch (type(tensor)) {
      case Type::kBFloat16:
        return static_cast<double>(caravan::to_float(caravan::to_bfloat16(static_cast<float>(value))));
      case Type::kHalf:
        return static_cast<double>(caravan::to_float(caravan::to_float16(static_cast<float>(value))));
      default:
        return value;
    }
  }
  static std::int64_t offset_of(const Object& tensor, const Sizes& at) {
    const Sizes strides = sizes(tensor, Attribute::kTensorStrides);
    return at[0] * strides[0] + at[1] * strides[1] + at[2] * strides[2] + at[3] * strides[3];
  }
  std::vector<double>& virtual_of(const Object& tensor) {
    std::vector<double>& memory = virtual_[number(tensor, Attribute::kTensorId)];
    if (memory.empty()) {
      const Sizes dims = sizes(tensor, Attribute::kTensorDims);
      memory.assign(static_cast<std::size_t>(dims[0] * dims[1] * dims[2] * dims[3]), std::nan(""));
    }
    return memory;
  }

  std::map<std::int64_t, void*> stored_;
  std::map<std::int64_t, std::vector<double>> virtual_;
};

Sizes broadcast(const Object& tensor, const Sizes& at) {
  const Sizes dims = sizes(tensor, Attribute::kTensorDims);
  Sizes result{};
  for (std::size_t i = 0; i < 4; ++i) {
    result[i] = dims[i] == 1 ? 0 : at[i];
  }
  return result;
}

void run_pointwise(const Object& operation, Memory& memory) {
  const Object& how = *part(operation, Attribute::kPointwiseDescriptor);
  const Object& x = *part(operation, Attribute::kPointwiseX);
  const Object& y = *part(operation, Attribute::kPointwiseY);
  const Object* b = part(operation, Attribute::kPointwiseB);
  const Object* t = part(operation, Attribute::kPointwiseT);
  const auto mode = static_cast<Pointwise>(number(how, Attribute::kPointwiseMode));
  const auto axis = static_cast<std::size_t>(number(how, Attribute::kPointwiseAxis));
  Memory::for_each(sizes(y, Attribute::kTensorDims), [&](const Sizes& at) {
    if (mode == Pointwise::kIndex) {
      memory.set(y, at, static_cast<double>(at[axis]));
      return;
    }
    const double left = memory.get(x, broadcast(x, at));
    const double right = b != nullptr ? memory.get(*b, broadcast(*b, at)) : 0.0;
    double result = std::nan("");
    switch (mode) {
      case Pointwise::kAdd:
        result = left + right;
        break;
      case Pointwise::kSub:
        result = left - right;
        break;
      case Pointwise::kMul:
        result = left * right;
        break;
      case Pointwise::kDiv:
        result = left / right;
        break;
      case Pointwise::kExp:
        result = std::exp(left);
        break;
      case Pointwise::kLog:
        result = std::log(left);
        break;
      case Pointwise::kGreaterOrEqual:
        result = left >= right ? 1.0 : 0.0;
        break;
      case Pointwise::kSelect:
        result = memory.get(*t, broadcast(*t, at)) != 0.0 ? left : right;
        break;
      case Pointwise::kIndex:
        break;
    }
    memory.set(y, at, result);
  });
}

void run_reduction(const Object& operation, Memory& memory) {
  const Object& x = *part(operation, Attribute::kReductionX);
  const Object& y = *part(operation, Attribute::kReductionY);
  const bool is_max =
      number(*part(operation, Attribute::kReductionDescriptor), Attribute::kReductionOperator) == 3;
  const Sizes from = sizes(x, Attribute::kTensorDims);
  const Sizes to = sizes(y, Attribute::kTensorDims);
  Memory::for_each(to, [&](const Sizes& at) {
    double result = is_max ? -INFINITY : 0.0;
    Sizes count{};
    for (std::size_t i = 0; i < 4; ++i) {
      count[i] = from[i] / to[i];
    }
    Memory::for_each(count, [&](const Sizes& k) {
      const Sizes in_x = {at[0] * count[0] + k[0], at[1] * count[1] + k[1], at[2] * count[2] + k[2],
                          at[3] * count[3] + k[3]};
      const double value = memory.get(x, in_x);
      result = is_max ? std::max(result, value) : result + value;
    });
    memory.set(y, at, result);
  });
}

void run_matmul(const Object& operation, Memory& memory) {
  const Object& a = *part(operation, Attribute::kMatmulA);
  const Object& b = *part(operation, Attribute::kMatmulB);
  const Object& c = *part(operation, Attribute::kMatmulC);
  const Sizes of_a = sizes(a, Attribute::kTensorDims);
  const Sizes of_b = sizes(b, Attribute::kTensorDims);
  Memory::for_each(sizes(c, Attribute::kTensorDims), [&](const Sizes& at) {
    double sum = 0.0;
    for (std::int64_t k = 0; k < of_a[3]; ++k) {
      sum += memory.get(a, {at[0], at[1], at[2], k}) *
             memory.get(b, {at[0], at[1] * of_b[1] / of_a[1], k, at[3]});
    }
    memory.set(c, at, sum);
  });
}

std::vector<std::unique_ptr<Object>>& objects() {
  static std::vector<std::unique_ptr<Object>> all;
  return all;
}

bool fails(const char* what) {
  const char* value = std::getenv("FAKE_CUDNN_FAIL");
  return value != nullptr && std::strcmp(value, what) == 0;
}

std::int64_t executions = 0;

}  // namespace

extern "C" {
// NOLINTBEGIN(readability-identifier-naming)
/// Graphs that were executed since the program began.
std::int64_t fake_cudnn_executions() {
  return executions;
}
std::size_t cudnnGetVersion() {
  const char* value = std::getenv("FAKE_CUDNN_VERSION");
  return value != nullptr ? std::strtoul(value, nullptr, 10) : 91900;
}
const char* cudnnGetErrorString(int status) {
  return status == kSuccess ? "CUDNN_STATUS_SUCCESS" : "CUDNN_STATUS_BAD_PARAM";
}
void cudnnGetLastErrorString(char* message, std::size_t size) {
  std::strncpy(message, "said by the fake", size);
}
int cudnnCreate(Handle* handle) {
  *handle = nullptr;
  return fails("Create") ? kNotInitialized : kSuccess;
}
int cudnnDestroy(Handle /*handle*/) {
  return kSuccess;
}
int cudnnSetStream(Handle /*handle*/, void* /*stream*/) {
  return kSuccess;
}
int cudnnBackendCreateDescriptor(int kind, Descriptor* descriptor) {
  *descriptor = objects().emplace_back(new Object{static_cast<Kind>(kind)}).get();
  return kSuccess;
}
int cudnnBackendDestroyDescriptor(Descriptor /*descriptor*/) {
  return kSuccess;  // kept: others may name it
}
int cudnnBackendSetAttribute(Descriptor descriptor, int name, int type, std::int64_t count,
                             const void* values) {
  auto& object = *static_cast<Object*>(descriptor);
  if (object.is_final) {
    return kBadParameter;
  }
  std::vector<std::int64_t>& numbers = object.numbers[name];
  numbers.assign(static_cast<std::size_t>(count), 0);
  const auto kind = static_cast<Value>(type);
  const std::size_t bytes = kind == Value::kBoolean ? 1
                            : kind == Value::kInt64 || kind == Value::kDescriptor ||
                                    kind == Value::kPointer || kind == Value::kHandle
                                ? 8
                                : 4;
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    std::memcpy(&numbers[i], static_cast<const unsigned char*>(values) + i * bytes, bytes);
  }
  if (kind == Value::kDescriptor && object.kind != Kind::kEngineHeuristic) {
    for (const std::int64_t part_of : numbers) {
      if (!reinterpret_cast<Object*>(part_of)->is_final && object.kind != Kind::kExecutionPlan) {
        return kBadParameter;
      }
    }
  }
  return kSuccess;
}
int cudnnBackendFinalize(Descriptor descriptor) {
  auto& object = *static_cast<Object*>(descriptor);
  if (object.kind == Kind::kExecutionPlan && fails("plan")) {
    return kNotSupported;
  }
  object.is_final = true;
  return kSuccess;
}
/// One engine, whose plan wants 1000 bytes unless told otherwise.
int cudnnBackendGetAttribute(Descriptor descriptor, int name, int /*type*/, std::int64_t /*most*/,
                             std::int64_t* count, void* values) {
  auto& object = *static_cast<Object*>(descriptor);
  *count = 1;
  if (name == static_cast<int>(Attribute::kHeuristicResults)) {
    auto& config = **static_cast<Object**>(values);
    config.numbers[static_cast<int>(Attribute::kHeuristicGraph)] = {
        number(object, Attribute::kHeuristicGraph)};
    return kSuccess;
  }
  const char* bytes = std::getenv("FAKE_CUDNN_WORKSPACE");
  *static_cast<std::int64_t*>(values) = bytes != nullptr ? std::atoll(bytes) : 1000;
  return kSuccess;
}
int cudnnBackendExecute(Handle /*handle*/, Descriptor plan, Descriptor pack) {
  if (fails("BackendExecute")) {
    return kBadParameter;
  }
  ++executions;
  const auto& pointers = *static_cast<Object*>(pack);
  const std::vector<std::int64_t>& ids = pointers.numbers.at(static_cast<int>(Attribute::kPackIds));
  std::map<std::int64_t, void*> stored;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    stored[ids[i]] =
        reinterpret_cast<void*>(pointers.numbers.at(static_cast<int>(Attribute::kPackPointers)).at(i));
  }
  Memory memory(stored);
  const Object& graph =
      *part(*part(*static_cast<Object*>(plan), Attribute::kPlanConfig), Attribute::kHeuristicGraph);
  for (const std::int64_t each : graph.numbers.at(static_cast<int>(Attribute::kGraphOperations))) {
    const auto& operation = *reinterpret_cast<Object*>(each);
    switch (operation.kind) {
      case Kind::kPointwiseOperation:
        run_pointwise(operation, memory);
        break;
      case Kind::kReductionOperation:
        run_reduction(operation, memory);
        break;
      case Kind::kMatmulOperation:
        run_matmul(operation, memory);
        break;
      case Kind::kReshapeOperation:
        memory.reshape(*part(operation, Attribute::kReshapeX), *part(operation, Attribute::kReshapeY));
        break;
      default:
        return kBadParameter;
    }
  }
  return kSuccess;
}
// NOLINTEND(readability-identifier-naming)
}
