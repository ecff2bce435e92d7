#include "emulator/observe.h"

#include "emulator/monitor.h"
#include "emulator/observe_streaming.h"

#if FASTCONV_EMULATOR_CHECKED

namespace fastconv::emulator {
namespace {

Monitor* monitor_of_thread() {
  return current_region().scheduler.monitor();
}

}  // namespace

void observe_access(const void* address, size_t bytes, Access kind, const Place& place) {
  if (Monitor* monitor = monitor_of_thread()) {
    monitor->access(reinterpret_cast<uintptr_t>(address), static_cast<uint32_t>(bytes), kind, place);
  }
}

void count_operation(const char* name, uint64_t count) {
  if (Monitor* monitor = monitor_of_thread()) monitor->count_operation(name, count);
}

void poison_shared(const void* address, size_t bytes) {
  if (Monitor* monitor = monitor_of_thread()) monitor->poison(address, bytes);
}

void observe_streaming(const void* address, size_t bytes) {
  if (Monitor* monitor = monitor_of_thread()) {
    monitor->stream(reinterpret_cast<uintptr_t>(address), static_cast<uint32_t>(bytes));
  }
}

void trust_other_blocks() {
  if (Monitor* monitor = monitor_of_thread()) monitor->trust_other_blocks();
}

}  // namespace fastconv::emulator

#endif
