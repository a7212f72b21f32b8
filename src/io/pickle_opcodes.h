// Opcodes of pickle protocol 2 that a tensor dict may contain, and names for messages about the others.
#pragma once

#include <cstdint>
#include <string>

namespace caravan {

enum class Opcode : std::uint8_t {
  kProto = 0x80,
  kEmptyDict = 0x7D,
  kEmptyList = 0x5D,
  kEmptyTuple = 0x29,
  kMark = 0x28,
  kTuple = 0x74,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kBinUnicode = 0x58,
  kShortBinString = 0x55,
  kBinInt = 0x4A,
  kBinInt1 = 0x4B,
  kBinInt2 = 0x4D,
  kLong1 = 0x8A,
  kBinFloat = 0x47,
  kNone = 0x4E,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kGlobal = 0x63,
  kBinPersId = 0x51,
  kReduce = 0x52,
  kBuild = 0x62,
  kBinPut = 0x71,
  kLongBinPut = 0x72,
  kBinGet = 0x68,
  kLongBinGet = 0x6A,
  kSetItem = 0x73,
  kSetItems = 0x75,
  kAppend = 0x61,
  kAppends = 0x65,
  kStop = 0x2E,
};

/// "REDUCE", or "0x42" for a byte that is no opcode.
std::string opcode_name(std::uint8_t opcode);

}  // namespace caravan
