// A condition that the data must fulfil and the host cannot see. On the device a failure ends the kernel as assert
// does, with cudaErrorAssert at the next call; in the emulator it is a KernelError. Code that follows must do no harm
// even so.
#pragma once

#include "ptx/device.h"

#if FASTCONV_EMULATOR
namespace fastconv::emulator {

// As fail(), for kernel code: a string of its own would be an access to memory that is nobody's.
[[noreturn]] void fail_of_condition(const char* what);

}  // namespace fastconv::emulator
#else
#include <cassert>
#endif

namespace fastconv::ptx {

__device__ __forceinline__ void require(bool condition, const char* what) {
#if FASTCONV_EMULATOR
  if (!condition) emulator::fail_of_condition(what);
#elif defined(__CUDA_ARCH__)
  if (!condition) __assert_fail(what, __FILE__, __LINE__, __func__);
#else
  (void)condition;
  (void)what;
#endif
}

}  // namespace fastconv::ptx
