// What an emulated primitive tells the checks and counters beyond the loads and stores that the compiler reports.
// Nothing, at no cost, in the fast build.
#pragma once

#include <cstddef>
#include <cstdint>

#include "emulator/access.h"
#include "emulator/place.h"

namespace fastconv::emulator {

#if FASTCONV_EMULATOR_CHECKED

// The current thread accesses memory at `place`, in code that the compiler does not instrument.
void observe_access(const void* address, size_t bytes, Access kind, const Place& place);
// Adds to the launch's count of the operation: "mma.m16n8k16", 1.
void count_operation(const char* name, uint64_t count);
// Shared memory as if never written: the target of a copy that has not landed.
void poison_shared(const void* address, size_t bytes);
// What other blocks wrote may be read from now on: after a fence or an atomic that synchronises with them.
void trust_other_blocks();

#else

inline void observe_access(const void*, size_t, Access, const Place&) {}
inline void count_operation(const char*, uint64_t) {}
inline void poison_shared(const void*, size_t) {}
inline void trust_other_blocks() {}

#endif

}  // namespace fastconv::emulator
