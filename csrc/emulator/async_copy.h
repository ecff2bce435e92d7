// What cp.async means. The fast emulator copies at once. The checked one reads the source at once, poisons the target,
// and lets the data land when the thread waits for its group, in a random order: who forgot to wait reads the poison.
#pragma once

#include <cstdint>
#include <cstring>

#include "ptx/vector.h"

namespace fastconv::emulator {

struct AsyncCopy {
  void* destination;
  int bytes;
  uint32_t data[4];
};

template <int bytes>
void read_async_source(AsyncCopy& copy, const void* source, int source_bytes) {
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
void write_async_target(void* destination, const uint32_t (&data)[4]) {
  ptx::Vector<uint32_t, bytes / 4> value;
  for (int i = 0; i < bytes / 4; ++i) value[i] = data[i];
  ptx::store_vector(static_cast<uint32_t*>(destination), value);
}

}  // namespace fastconv::emulator
