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

/// Length of the UTF-8 sequence at the front, 0 when it is not one (overlong forms and surrogates included).
std::size_t utf8_sequence(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) {
    return 1;
  }
  const std::size_t length = first >= 0xC2 && first <= 0xDF   ? 2
                             : first >= 0xE0 && first <= 0xEF ? 3
                             : first >= 0xF0 && first <= 0xF4 ? 4
                                                              : 0;
  if (length == 0 || length > text.size()) {
    return 0;
  }
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80U) {
      return 0;
    }
  }
  const unsigned char second = byte(1);
  const bool is_outside = (first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) ||
                          (first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F);
  return is_outside ? 0 : length;
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

bool is_valid_utf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t length = utf8_sequence(text);
    if (length == 0) {
      return false;
    }
    text.remove_prefix(length);
  }
  return true;
}

}  // namespace caravan
