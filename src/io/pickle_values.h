// The values of the pickle interpreter: nodes in one pool, referred to by index, so that no nesting depth in
// a file ever becomes recursion here (not even in a destructor).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/core/dtype.h"

namespace caravan {

enum class PickleKind : std::uint8_t {
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kTuple,
  kList,
  kDict,
  kOrderedDict,
  kGlobal,
  kStorage,
  kTensor,
};

/// The only names a file may mention; a token that REDUCE and BINPERSID look at, never something to run.
enum class PickleGlobal : std::uint8_t { kOrderedDict, kRebuildTensor, kRebuildParameter, kStorageClass };

using PickleIndex = std::uint32_t;

struct PickleNode {
  PickleKind kind = PickleKind::kNone;
  PickleGlobal global = PickleGlobal::kOrderedDict;  // kGlobal
  DType dtype = DType::kFloat32;                     // kGlobal of a storage class, kStorage
  std::int64_t number = 0;                           // kBool, kInt; kStorage: elements; kTensor: its place
  std::string text;                                  // kString; kStorage: key
  std::vector<PickleIndex> children;                 // kTuple, kList; dicts: key, value, key, value, ...
};

/// Null for a name outside the list.
std::optional<PickleNode> allowed_global(std::string_view module, std::string_view name);

}  // namespace caravan
