#include "caravan/backend/backend.h"

#include <cstring>

#include "caravan/core/error.h"

namespace caravan {

void Backend::begin_recording(Stream& /*stream*/) {
  fail<InternalError>("{} records nothing", name());
}

std::unique_ptr<Recording> Backend::end_recording(Stream& /*stream*/) {
  fail<InternalError>("{} records nothing", name());
}

void Backend::send(const void* from, const TensorView& to, Stream& /*stream*/) {
  std::memcpy(to.raw(), from, static_cast<std::size_t>(to.bytes()));
}

}  // namespace caravan
