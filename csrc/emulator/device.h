// The device that the emulator plays, and how it plays it. Process-wide settings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace fastconv::emulator {

struct Device {
  const char* name;
  int capability;  // 80, 90
  int multiprocessors;
  size_t block_shared_bytes;  // a block may have, static and dynamic together
};

constexpr size_t kStaticSharedBytes = 48 * 1024;  // a kernel may declare
constexpr size_t kMostSharedBytes = 228 * 1024;   // of any device, in whole pages

const Device& current_device();
// 80 or 90; std::invalid_argument for others.
void set_device(int capability);

// Threads of the CPU that run blocks.
int worker_threads();
void set_worker_threads(int threads);

}  // namespace fastconv::emulator
