// What the module's own ELF file says: where static shared memory is, and which kernel it belongs to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace fastconv::emulator {

// A `__shared__` variable: in the emulator a thread_local one that is local to a function.
struct SharedArray {
  uintptr_t offset;  // in the module's thread-local segment
  size_t bytes;
  std::string symbol;
  std::string name;  // as it is written in the kernel
};

// Sorted by offset. Empty where the module has been stripped.
const std::vector<SharedArray>& shared_arrays();

// True where the array is declared in the function of this symbol.
bool belongs_to(const SharedArray& array, const std::string& function_symbol);
// The mangled name of a function of this module; empty where unknown.
const std::string& symbol_of(const void* function);
// Static shared memory that a kernel itself declares; functions that it calls are not counted.
size_t static_shared_bytes(const void* kernel);

// The thread-local segment of the calling thread.
struct ThreadSegment {
  uintptr_t begin = 0;
  size_t bytes = 0;
};
ThreadSegment thread_segment();

// The addresses of the module's code and data.
struct ModuleRange {
  uintptr_t begin, end;
};
const std::vector<ModuleRange>& module_ranges();
// What site numbers count from.
uintptr_t module_base();

}  // namespace fastconv::emulator
