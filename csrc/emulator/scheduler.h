// What a CUDA thread may ask of the scheduler: to wait for others. See docs/emulator.md.
#pragma once

#include <cstdint>
#include <string>

namespace fastconv::emulator {

// Keeps calls in the two branches of an `if` apart, so that each has its own line. GCC does so by itself.
#if defined(__clang__)
#define FASTCONV_OWN_CALL __attribute__((nomerge))
#else
#define FASTCONV_OWN_CALL
#endif

// An operation that the lanes of a warp do together. Each lane arrives with a pointer to its registers (any struct on
// its stack) and is suspended; the last one to arrive calls `complete` with all the pointers, then every lane goes on.
struct WarpOperation {
  const char* name;
  // deposits[lane] is valid for the lanes of `arrived`: the mask without the lanes that have exited. May be null.
  void (*complete)(void* const* deposits, uint32_t arrived);
};

FASTCONV_OWN_CALL void meet_lanes(uint32_t mask, const WarpOperation& operation, void* deposit);

// Barriers 0..15 of the block. count 0 means every thread that has not exited. Returns how many of the threads that
// waited brought a true predicate.
FASTCONV_OWN_CALL int barrier_sync(int barrier, int count, bool predicate);
FASTCONV_OWN_CALL void barrier_arrive(int barrier, int count);

// Lets other threads run; for loops that poll.
void yield_thread();

// Orders the thread's accesses to memory for all threads of the CPU.
void memory_fence();

// Ends the launch: KernelError with this text and the place of the current thread is thrown from launch().
[[noreturn]] void fail(const std::string& what);

}  // namespace fastconv::emulator
