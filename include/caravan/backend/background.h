// Work that goes on beside the computation but advances only when it is called.
#pragma once

namespace caravan {

/// Messages in a library without threads of its own. A context that has one calls it after every long op, so
/// that what was started moves while the model computes.
class Background {
 public:
  Background() = default;
  virtual ~Background() = default;
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;
  Background(Background&&) = delete;
  Background& operator=(Background&&) = delete;

  /// Never blocks; errors appear where the work is waited on.
  virtual void advance() = 0;
};

}  // namespace caravan
