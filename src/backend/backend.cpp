#include "caravan/backend/backend.h"

#include "caravan/core/error.h"

namespace caravan {

void Backend::begin_recording(Stream& /*stream*/) {
  fail<InternalError>("{} records nothing", name());
}

std::unique_ptr<Recording> Backend::end_recording(Stream& /*stream*/) {
  fail<InternalError>("{} records nothing", name());
}

}  // namespace caravan
