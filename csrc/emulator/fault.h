// A kernel that makes the processor fault (a wild pointer, a stack that overflows, an integer division by zero) ends
// its launch with a KernelError instead of the process.
#pragma once

#include <vector>

#include "emulator/block_scheduler.h"

namespace fastconv::emulator {

// Installs the signal handlers, once. Faults outside of kernels go to the handlers that were there before.
void report_faults();

// The stack on which the calling thread handles faults of kernels that run in the region. One that the thread already
// has is kept.
class FaultStack {
 public:
  explicit FaultStack(const Region& region);
  ~FaultStack();
  FaultStack(const FaultStack&) = delete;
  FaultStack& operator=(const FaultStack&) = delete;

 private:
  int entry_;  // of the region, in the table that the handler reads
  std::vector<char> memory_;
};

}  // namespace fastconv::emulator
