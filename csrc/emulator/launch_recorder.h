// A dry run: launches are noted, not run.
#pragma once

#include <string>
#include <vector>

#include "emulator/launch.h"

namespace fastconv::emulator {

struct RecordedLaunch {
  std::string kernel;  // its name in reports
  std::string symbol;  // its mangled name, which nvcc gives it too; empty where the module has been stripped
  dim3 grid, block;
  size_t shared_bytes = 0;  // dynamic and static
};

// While it lives, what its thread launches is kept here, and no kernel runs: pointers may be to nowhere. Nothing is
// asked of the device that is played, so that launches for any GPU can be noted.
class LaunchRecorder {
 public:
  LaunchRecorder();
  ~LaunchRecorder();
  LaunchRecorder(const LaunchRecorder&) = delete;
  LaunchRecorder& operator=(const LaunchRecorder&) = delete;

  // The innermost of this thread; null where launches run.
  static LaunchRecorder* current();

  void note(const LaunchRequest& request);
  const std::vector<RecordedLaunch>& launches() const { return launches_; }

 private:
  LaunchRecorder* const outer_;
  std::vector<RecordedLaunch> launches_;
};

}  // namespace fastconv::emulator
