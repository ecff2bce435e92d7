// A place in the program: a return address, and the frame it was called from, whose callers can be followed.
#pragma once

#include <string>
#include <vector>

namespace fastconv::emulator {

struct Place {
  const void* site = nullptr;   // the instruction after a call
  const void* frame = nullptr;  // of the function that was called
};

// In a function that must not be inlined: where it was called from.
#define FASTCONV_CALLED_FROM (::fastconv::emulator::Place{__builtin_return_address(0), __builtin_frame_address(0)})

// Return addresses from the place outwards to the bottom of the CUDA thread's stack, followed by frame pointers. Only
// for frames on the stacks of CUDA threads.
std::vector<const void*> call_chain(const Place& place);

struct SourceLine {
  std::string function, file;
  int line = 0;
};

// The lines of the calls that return to `site`: the innermost first, then what it was inlined into. Empty where
// unknown: no debug information, or no addr2line on this machine.
std::vector<SourceLine> source_lines(const void* site);
// The same for many at once, so that later calls answer from memory.
void look_up_lines(const std::vector<const void*>& sites);

// The kernel's own line for a chain of calls: the innermost that is in a kernel, not in the primitives it uses. Then
// who called it. For example "csrc/kernels/pool.cuh:40 in max_pool".
std::string describe(const std::vector<const void*>& chain);
// Only its file and line.
std::string line_of(const void* site);
// True where both calls stand in the same source line, as copies made by the compiler do.
bool same_line(const void* site, const void* other);

}  // namespace fastconv::emulator
