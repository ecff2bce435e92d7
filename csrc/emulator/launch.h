// A kernel launch on the CPU.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "emulator/vector_types.h"

namespace fastconv::emulator {

// A tensor the kernel may touch.
struct MemoryRange {
  const void* begin = nullptr;
  size_t bytes = 0;
  const char* name = "";
  bool writable = false;
};

struct LaunchRequest {
  const char* kernel = "";  // its name in reports
  dim3 grid, block;
  size_t dynamic_shared_bytes = 0;
  int max_threads = 1024;  // the kernel's launch bound
  std::vector<MemoryRange> tensors;
  const void* function = nullptr;  // the kernel's address, from which its static shared memory is known
};

// A launch that CUDA would refuse, or a kernel that did something wrong; what() is the whole report.
class KernelError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

namespace detail {
void launch(const LaunchRequest& request, void (*thread_body)(const void*), const void* closure);
}

// Calls body() once as every CUDA thread of the grid and returns when all are done. What body refers to must live on
// the caller's stack: it plays the part of the kernel's parameters.
template <class Body>
void launch(const LaunchRequest& request, const Body& body) {
  detail::launch(request, [](const void* closure) { (*static_cast<const Body*>(closure))(); }, &body);
}

}  // namespace fastconv::emulator
