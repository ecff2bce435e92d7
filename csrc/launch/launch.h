// How a kernel is started: cudaLaunchKernel in one build, the emulator in the other. Nothing else in launch/ knows
// which.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

#include "common/problem.h"
#include "ptx/device.h"

#if FASTCONV_EMULATOR
#include "emulator/launch.h"
#endif

namespace fastconv {

// Memory that a kernel may touch: the emulator's check mode holds it to that.
struct TensorRange {
  const char* name;
  const void* begin;
  int64_t bytes;
  bool writable = false;
};

// Where to run: a CUDA device and a stream handle on it. The emulator has one device and no streams.
struct Stream {
  int device = 0;
  uint64_t handle = 0;
};

struct LaunchShape {
  const char* kernel;  // its name in errors
  unsigned blocks;
  int threads;
  int64_t shared_bytes;
  int launch_bound;  // the constant in the kernel's own __launch_bounds__; the emulator refuses a block beyond it
};

// Bytes from an operand's first element to the end of its last.
inline int64_t bytes_of(const Operand& operand, int64_t element_size) {
  return (operand.last_offset() + 1) * element_size;
}

#if FASTCONV_EMULATOR

template <class Parameters>
void launch_kernel(const LaunchShape& shape, void (*kernel)(Parameters), const Parameters& parameters,
                   std::initializer_list<TensorRange> ranges, const Stream&) {
  emulator::LaunchRequest request;
  request.kernel = shape.kernel;
  request.grid = dim3(shape.blocks);
  request.block = dim3(shape.threads);
  request.dynamic_shared_bytes = shape.shared_bytes;
  request.max_threads = shape.launch_bound;
  request.function = reinterpret_cast<const void*>(kernel);
  for (const TensorRange& range : ranges) {
    if (range.begin == nullptr || range.bytes <= 0) continue;
    emulator::MemoryRange memory;
    memory.begin = range.begin;
    memory.bytes = range.bytes;
    memory.name = range.name;
    memory.writable = range.writable;
    request.tensors.push_back(memory);
  }
  emulator::launch(request, [&] { kernel(parameters); });
}

#else

// Throws std::runtime_error that names the kernel, its launch shape and CUDA's error.
void launch_on_device(const LaunchShape& shape, const void* kernel, void* parameters, const Stream& stream);

template <class Parameters>
void launch_kernel(const LaunchShape& shape, void (*kernel)(Parameters), const Parameters& parameters,
                   std::initializer_list<TensorRange>, const Stream& stream) {
  launch_on_device(shape, reinterpret_cast<const void*>(kernel), const_cast<Parameters*>(&parameters), stream);
}

#endif

}  // namespace fastconv
