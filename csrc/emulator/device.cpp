#include "emulator/device.h"

#include <sched.h>

#include <atomic>
#include <stdexcept>
#include <thread>

namespace fastconv::emulator {
namespace {

constexpr Device kDevices[] = {
    {"sm_80", 80, 108, 163 * 1024},
    {"sm_90", 90, 132, 227 * 1024},
};

std::atomic<const Device*> device{&kDevices[1]};
std::atomic<int> threads{0};  // 0: as many as the process may use

int usable_cores() {
#if defined(__linux__)
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof(cores), &cores) == 0) return CPU_COUNT(&cores);
#endif
  const unsigned int cores_of_machine = std::thread::hardware_concurrency();
  return cores_of_machine > 0 ? static_cast<int>(cores_of_machine) : 1;
}

}  // namespace

const Device& current_device() {
  return *device.load(std::memory_order_relaxed);
}

void set_device(int capability) {
  for (const Device& candidate : kDevices) {
    if (candidate.capability == capability) {
      device.store(&candidate, std::memory_order_relaxed);
      return;
    }
  }
  throw std::invalid_argument("the emulator has no device of compute capability " + std::to_string(capability) +
                              "; it has 80 and 90");
}

int worker_threads() {
  const int chosen = threads.load(std::memory_order_relaxed);
  return chosen > 0 ? chosen : usable_cores();
}

void set_worker_threads(int count) {
  if (count < 1) throw std::invalid_argument("threads must be at least 1, got " + std::to_string(count));
  threads.store(count, std::memory_order_relaxed);
}

}  // namespace fastconv::emulator
