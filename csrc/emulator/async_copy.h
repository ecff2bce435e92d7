// What cp.async means. The fast emulator copies at once. The checked one reads the source at once, poisons the target,
// and lets the data land when the thread waits for its group, in a random order: who forgot to wait reads the poison.
#pragma once

#include <cstdint>
#include <cstring>

#include "emulator/cuda_language.h"
#include "emulator/observe.h"
#include "ptx/vector.h"

// All in line, so that the accesses are those of the kernel's own line.
namespace fastconv::emulator {

constexpr uint32_t kPoison = 0xffffffffu;  // a NaN, also as two 16-bit numbers

struct AsyncCopy {
  void* destination;
  int bytes;
  uint32_t data[4];
};

template <int bytes>
__forceinline__ void read_async_source(AsyncCopy& copy, const void* source, int source_bytes) {
  if (source_bytes == bytes) {
    const auto whole = ptx::load_vector<bytes / 4>(static_cast<const uint32_t*>(source));
    for (int i = 0; i < bytes / 4; ++i) copy.data[i] = whole[i];
    return;
  }
  unsigned char part[16] = {};
  for (int i = 0; i < source_bytes; ++i) part[i] = static_cast<const unsigned char*>(source)[i];
  std::memcpy(copy.data, part, sizeof(part));
}

template <int bytes>
__forceinline__ void write_async_target(void* destination, const uint32_t (&data)[4]) {
  ptx::Vector<uint32_t, bytes / 4> value;
  for (int i = 0; i < bytes / 4; ++i) value[i] = data[i];
  ptx::store_vector(static_cast<uint32_t*>(destination), value);
}

#if FASTCONV_EMULATOR_CHECKED

// False where the launch does not want copies to be late: then the caller writes at once.
bool defer_async_copy(const AsyncCopy& copy);
void commit_async_copies();
// A new block begins: copies of a thread that never waited for them, or that failed, are void.
void forget_async_copies();
// Takes one copy that is due from those that may be under way, in a random order; false when none is left.
bool take_landing_copy(int pending_groups, AsyncCopy& copy);

template <int bytes>
__forceinline__ void copy_async(void* destination, const void* source, int source_bytes) {
  AsyncCopy copy{destination, bytes, {}};
  read_async_source<bytes>(copy, source, source_bytes);
  if (defer_async_copy(copy)) {
    write_async_target<bytes>(destination, {kPoison, kPoison, kPoison, kPoison});
    poison_shared(destination, bytes);
  } else {
    write_async_target<bytes>(destination, copy.data);
  }
}

__forceinline__ void wait_async_copies(int pending_groups) {
  AsyncCopy copy;
  while (take_landing_copy(pending_groups, copy)) {
    if (copy.bytes == 16) {
      write_async_target<16>(copy.destination, copy.data);
    } else if (copy.bytes == 8) {
      write_async_target<8>(copy.destination, copy.data);
    } else {
      write_async_target<4>(copy.destination, copy.data);
    }
  }
}

#else

template <int bytes>
__forceinline__ void copy_async(void* destination, const void* source, int source_bytes) {
  if (source_bytes == bytes) {
    std::memcpy(destination, source, bytes);
  } else {
    std::memset(destination, 0, bytes);
    std::memcpy(destination, source, source_bytes);
  }
}
inline void commit_async_copies() {}
__forceinline__ void wait_async_copies(int) {}

#endif

}  // namespace fastconv::emulator
