// Work of a device that is recorded once and then started with one call (a CUDA graph).
#pragma once

#include "caravan/backend/stream.h"

namespace caravan {

/// What ops enqueued between begin_recording and end_recording of a backend. It holds addresses: what they
/// point to must stay where it is, and is read and written again at every replay. Lives no longer than its
/// backend.
class Recording {
 public:
  Recording() = default;
  virtual ~Recording() = default;
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  Recording(Recording&&) = delete;
  Recording& operator=(Recording&&) = delete;

  /// Enqueues all of it.
  virtual void replay(Stream& stream) = 0;
};

}  // namespace caravan
