// cp.async: copies from global to shared memory that go on while the thread does. Groups are per thread and in order;
// other threads see the data after the thread has waited for its group and a barrier has followed.
#pragma once

#include <cstdint>

#include "ptx/vector.h"

#if FASTCONV_EMULATOR
#include "emulator/async_copy.h"
#endif

namespace fastconv::ptx {

// The address that PTX instructions on shared memory take.
__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
#if FASTCONV_EMULATOR
  return static_cast<uint32_t>(static_cast<const unsigned char*>(pointer) - dynamic_shared_memory<unsigned char>());
#else
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
#endif
}

// Copies `source_bytes` (0..bytes) of the `bytes` (4, 8 or 16) and fills the rest with zeros; with source_bytes 0 the
// source is not touched and may be any address. Both addresses are aligned to `bytes`. 16 bytes bypass L1: they are not
// read twice.
template <int bytes>
__device__ __forceinline__ void copy_async(void* destination, const void* source, int source_bytes) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16, "cp.async moves 4, 8 or 16 bytes");
#if FASTCONV_EMULATOR
  emulator::copy_async<bytes>(destination, source, source_bytes);
#else
  if constexpr (bytes == 16) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared_address(destination)),
                 "l"(source), "r"(source_bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(destination)), "l"(source),
                 "n"(bytes), "r"(source_bytes)
                 : "memory");
  }
#endif
}

// Ends the group of all copies since the last commit; it may be empty.
__device__ __forceinline__ void commit_async_copies() {
#if FASTCONV_EMULATOR
  emulator::commit_async_copies();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most the `pending` newest groups of this thread are under way.
template <int pending>
__device__ __forceinline__ void wait_async_copies() {
#if FASTCONV_EMULATOR
  emulator::wait_async_copies(pending);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#endif
}

}  // namespace fastconv::ptx
