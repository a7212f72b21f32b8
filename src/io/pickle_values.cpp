#include "pickle_values.h"

#include <algorithm>
#include <array>

namespace caravan {
namespace {

struct StorageClass {
  std::string_view name;
  DType dtype;
};

constexpr std::array kStorageClasses = {
    StorageClass{"BFloat16Storage", DType::kBFloat16}, StorageClass{"HalfStorage", DType::kFloat16},
    StorageClass{"FloatStorage", DType::kFloat32},     StorageClass{"DoubleStorage", DType::kFloat64},
    StorageClass{"LongStorage", DType::kInt64},        StorageClass{"IntStorage", DType::kInt32},
    StorageClass{"ShortStorage", DType::kInt16},       StorageClass{"CharStorage", DType::kInt8},
    StorageClass{"ByteStorage", DType::kUInt8},        StorageClass{"BoolStorage", DType::kBool},
};

PickleNode global_node(PickleGlobal global, DType dtype = DType::kFloat32) {
  PickleNode node;
  node.kind = PickleKind::kGlobal;
  node.global = global;
  node.dtype = dtype;
  return node;
}

}  // namespace

std::optional<PickleNode> allowed_global(std::string_view module, std::string_view name) {
  if (module == "collections" && name == "OrderedDict") {
    return global_node(PickleGlobal::kOrderedDict);
  }
  if (module == "torch._utils" && name == "_rebuild_tensor_v2") {
    return global_node(PickleGlobal::kRebuildTensor);
  }
  if (module == "torch._utils" && name == "_rebuild_parameter") {
    return global_node(PickleGlobal::kRebuildParameter);
  }
  if (module == "torch") {
    const auto at = std::find_if(kStorageClasses.begin(), kStorageClasses.end(),
                                 [&](const StorageClass& c) { return c.name == name; });
    if (at != kStorageClasses.end()) {
      return global_node(PickleGlobal::kStorageClass, at->dtype);
    }
  }
  return std::nullopt;
}

}  // namespace caravan
