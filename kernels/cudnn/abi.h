// What is used of cuDNN's backend interface (cudnn_graph.h of cuDNN 9, an ABI that 9.x keeps), declared here
// so that neither its headers nor the library are needed to build.
#pragma once

#include <cstddef>
#include <cstdint>

namespace caravan::cudnn {

using Handle = struct HandleTag*;
using Descriptor = void*;
inline constexpr int kSuccess = 0;

enum class Kind : int {
  kPointwise = 0,
  kEngineConfig = 3,
  kEngineHeuristic = 4,
  kExecutionPlan = 5,
  kPointwiseOperation = 13,
  kOperationGraph = 15,
  kVariantPack = 16,
  kTensor = 17,
  kMatmul = 18,
  kMatmulOperation = 19,
  kReduction = 21,
  kReductionOperation = 22,
  kReshapeOperation = 31,
};

enum class Attribute : int {
  kPointwiseMode = 0,
  kPointwisePrecision = 1,
  kPointwiseAxis = 9,
  kHeuristicMode = 200,
  kHeuristicGraph = 201,
  kHeuristicResults = 202,
  kPlanHandle = 400,
  kPlanConfig = 401,
  kPlanWorkspaceBytes = 402,
  kPointwiseDescriptor = 750,
  kPointwiseX = 751,
  kPointwiseB = 752,
  kPointwiseY = 753,
  kPointwiseAlpha1 = 754,
  kPointwiseAlpha2 = 755,
  kPointwiseT = 758,
  kGraphHandle = 800,
  kGraphOperations = 801,
  kTensorAlignment = 900,
  kTensorType = 901,
  kTensorDims = 902,
  kTensorStrides = 903,
  kTensorId = 906,
  kTensorIsVirtual = 907,
  kTensorIsByValue = 908,
  kPackIds = 1000,
  kPackPointers = 1001,
  kPackWorkspace = 1003,
  kMatmulType = 1500,
  kMatmulA = 1520,
  kMatmulB = 1521,
  kMatmulC = 1522,
  kMatmulDescriptor = 1523,
  kReductionOperator = 1600,
  kReductionType = 1601,
  kReductionX = 1610,
  kReductionY = 1611,
  kReductionDescriptor = 1612,
  kReshapeX = 2200,
  kReshapeY = 2201,
};

/// Types of attributes' values.
enum class Value : int {
  kHandle = 0,
  kDataType = 1,
  kBoolean = 2,
  kInt64 = 3,
  kFloat = 4,
  kPointer = 6,
  kHeuristicMode = 8,
  kPointwiseMode = 14,
  kDescriptor = 15,
  kReductionOperator = 18,
};

enum class Type : int { kFloat = 0, kHalf = 2, kInt32 = 4, kBFloat16 = 9, kBoolean = 11 };
enum class Pointwise : int {
  kAdd = 0,
  kMul = 1,
  kDiv = 6,
  kSub = 9,
  kExp = 13,
  kLog = 15,
  kGreaterOrEqual = 303,
  kIndex = 501,
  kSelect = 601,  // t ? x : b
};
enum class Reduction : int { kAdd = 0, kMax = 3 };
enum class Heuristic : int { kFallback = 2, kBest = 3 };

/// By their names without "cudnn".
// NOLINTBEGIN(readability-identifier-naming)
struct Table {
  std::size_t (*GetVersion)();
  const char* (*GetErrorString)(int);
  void (*GetLastErrorString)(char*, std::size_t);
  int (*Create)(Handle*);
  int (*Destroy)(Handle);
  int (*SetStream)(Handle, void*);
  int (*BackendCreateDescriptor)(int, Descriptor*);
  int (*BackendDestroyDescriptor)(Descriptor);
  int (*BackendFinalize)(Descriptor);
  int (*BackendSetAttribute)(Descriptor, int, int, std::int64_t, const void*);
  int (*BackendGetAttribute)(Descriptor, int, int, std::int64_t, std::int64_t*, void*);
  int (*BackendExecute)(Handle, Descriptor, Descriptor);
};
// NOLINTEND(readability-identifier-naming)

/// body(name without "cudnn", the table's pointer) for every function.
template <class Body>
void for_each_function(Table& table, const Body& body) {
  body("GetVersion", table.GetVersion);
  body("GetErrorString", table.GetErrorString);
  body("GetLastErrorString", table.GetLastErrorString);
  body("Create", table.Create);
  body("Destroy", table.Destroy);
  body("SetStream", table.SetStream);
  body("BackendCreateDescriptor", table.BackendCreateDescriptor);
  body("BackendDestroyDescriptor", table.BackendDestroyDescriptor);
  body("BackendFinalize", table.BackendFinalize);
  body("BackendSetAttribute", table.BackendSetAttribute);
  body("BackendGetAttribute", table.BackendGetAttribute);
  body("BackendExecute", table.BackendExecute);
}

}  // namespace caravan::cudnn
