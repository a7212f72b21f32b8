// Logical queues of work. On CPUs everything is done when the call returns, so a Stream is only a name there;
// on GPUs it is a queue in which work runs in order.
#pragma once

#include <cstdint>

namespace caravan {

enum class StreamId : std::uint8_t { kCompute, kParamComm, kTensorComm, kPipelineComm, kCopy };
inline constexpr int kStreamCount = 5;

struct Stream {
  StreamId id = StreamId::kCompute;
  void* handle = nullptr;  // the device library's stream; null on CPUs
};

}  // namespace caravan
