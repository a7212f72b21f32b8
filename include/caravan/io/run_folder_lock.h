// One run at a time in an output folder: a lock on a file in it, run.lock. The system gives the lock back
// when the process ends, however it ends; a lock file that a killed run left is in nobody's way.
#pragma once

#include <string>

namespace caravan {

inline constexpr const char* kRunLockName = "run.lock";

/// For one process of a run. Where the file system knows no locks, a warning says so and the run goes on.
class RunFolderLock {
 public:
  RunFolderLock() = default;
  RunFolderLock(const RunFolderLock&) = delete;
  RunFolderLock& operator=(const RunFolderLock&) = delete;
  /// Gives the folder back; removes the lock file when take() was called.
  ~RunFolderLock();

  /// For a start that may still fail and must leave no trace: takes the lock when the folder has a lock file,
  /// creates none. Throws ConfigError when another process holds it, saying which.
  void take_if_present(const std::string& folder);
  /// Creates folder and lock file where they are missing; holds the lock from here on. Throws ConfigError
  /// when another process holds it, IoError when folder or file cannot be created.
  void take(const std::string& folder);

 private:
  enum class Missing { kCreate, kLeave };
  void open_and_lock(const std::string& folder, Missing missing);
  void describe_holder() const;

  std::string path_;
  int descriptor_ = -1;
  bool removes_file_ = false;
};

/// What the lock file in `folder` says of the run that holds it (host, process, time), as this process sees
/// the folder. Empty when there is none, or nothing in it.
std::string run_lock_text(const std::string& folder);

}  // namespace caravan
