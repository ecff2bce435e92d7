// One access of a CUDA thread to memory.
#pragma once

#include <cstdint>

namespace fastconv::emulator {

enum class Access : uint8_t { load, store, atomic };

inline const char* name_of(Access access) {
  return access == Access::load ? "load" : access == Access::store ? "store" : "atomic";
}

}  // namespace fastconv::emulator
