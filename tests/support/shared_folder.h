// One temporary folder for all ranks of a test job.
#pragma once

#include <memory>
#include <string>

#include "caravan/comm/communicator.h"
#include "support/temporary_folder.h"

namespace caravan::test {

/// A temporary folder that all ranks of the job share; rank 0 removes it.
class SharedFolder {
 public:
  explicit SharedFolder(Communicator& world) : world_(world) {
    if (world.rank() == 0) {
      folder_ = std::make_unique<TemporaryFolder>();
      path_ = folder_->path().string();
    }
    world.broadcast_bytes(path_, 0);
  }
  ~SharedFolder() { world_.barrier(); }
  SharedFolder(const SharedFolder&) = delete;
  SharedFolder& operator=(const SharedFolder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  Communicator& world_;
  std::unique_ptr<TemporaryFolder> folder_;
  std::string path_;
};

}  // namespace caravan::test
