// The entry points that the compiler calls before every load and store of sources built with -fsanitize=thread. The
// sanitizer's own library is not linked; these take its place. They do nothing but for CUDA threads of a watched
// launch.
#include "emulator/monitor.h"

#if FASTCONV_EMULATOR_CHECKED

#include <cstring>

namespace fastconv::emulator {
namespace {

thread_local Monitor* active = nullptr;

inline void observe(const volatile void* address, uint32_t bytes, Access kind, const Place& place) {
  Monitor* monitor = active;
  if (monitor != nullptr) monitor->access(reinterpret_cast<uintptr_t>(address), bytes, kind, place);
}

// A range has no natural width: it is seen as the aligned pieces it consists of.
void observe_range(const void* address, size_t bytes, Access kind, const Place& place) {
  if (active == nullptr) return;
  uintptr_t begin = reinterpret_cast<uintptr_t>(address);
  while (bytes > 0) {
    uint32_t piece = 16;
    while (piece > bytes || begin % piece != 0) piece /= 2;
    active->access(begin, piece, kind, place);
    begin += piece;
    bytes -= piece;
  }
}

}  // namespace

Monitor* active_monitor() {
  return active;
}
void set_active_monitor(Monitor* monitor) {
  active = monitor;
}

}  // namespace fastconv::emulator

using fastconv::emulator::Access;

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_ignore_thread_begin() {}
void __tsan_ignore_thread_end() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

#define FASTCONV_ACCESS(bytes)                                                              \
  void __tsan_read##bytes(void* address) {                                                  \
    fastconv::emulator::observe(address, bytes, Access::load, FASTCONV_CALLED_FROM);        \
  }                                                                                         \
  void __tsan_write##bytes(void* address) {                                                 \
    fastconv::emulator::observe(address, bytes, Access::store, FASTCONV_CALLED_FROM);       \
  }                                                                                         \
  void __tsan_unaligned_read##bytes(const void* address) {                                  \
    fastconv::emulator::observe_range(address, bytes, Access::load, FASTCONV_CALLED_FROM);  \
  }                                                                                         \
  void __tsan_unaligned_write##bytes(void* address) {                                       \
    fastconv::emulator::observe_range(address, bytes, Access::store, FASTCONV_CALLED_FROM); \
  }                                                                                         \
  void __tsan_volatile_read##bytes(void* address) {                                         \
    fastconv::emulator::observe(address, bytes, Access::load, FASTCONV_CALLED_FROM);        \
  }                                                                                         \
  void __tsan_volatile_write##bytes(void* address) {                                        \
    fastconv::emulator::observe(address, bytes, Access::store, FASTCONV_CALLED_FROM);       \
  }                                                                                         \
  void __tsan_read_write##bytes(void* address) {                                            \
    fastconv::emulator::observe(address, bytes, Access::load, FASTCONV_CALLED_FROM);        \
    fastconv::emulator::observe(address, bytes, Access::store, FASTCONV_CALLED_FROM);       \
  }                                                                                         \
  void __tsan_unaligned_read_write##bytes(void* address) {                                  \
    fastconv::emulator::observe_range(address, bytes, Access::load, FASTCONV_CALLED_FROM);  \
    fastconv::emulator::observe_range(address, bytes, Access::store, FASTCONV_CALLED_FROM); \
  }

FASTCONV_ACCESS(1)
FASTCONV_ACCESS(2)
FASTCONV_ACCESS(4)
FASTCONV_ACCESS(8)
FASTCONV_ACCESS(16)

void __tsan_read_range(void* address, size_t bytes) {
  fastconv::emulator::observe_range(address, bytes, Access::load, FASTCONV_CALLED_FROM);
}
void __tsan_write_range(void* address, size_t bytes) {
  fastconv::emulator::observe_range(address, bytes, Access::store, FASTCONV_CALLED_FROM);
}

// Clang calls these in place of the library's functions.
void* __tsan_memcpy(void* destination, const void* source, size_t bytes) {
  fastconv::emulator::observe_range(source, bytes, Access::load, FASTCONV_CALLED_FROM);
  fastconv::emulator::observe_range(destination, bytes, Access::store, FASTCONV_CALLED_FROM);
  return std::memcpy(destination, source, bytes);
}
void* __tsan_memmove(void* destination, const void* source, size_t bytes) {
  fastconv::emulator::observe_range(source, bytes, Access::load, FASTCONV_CALLED_FROM);
  fastconv::emulator::observe_range(destination, bytes, Access::store, FASTCONV_CALLED_FROM);
  return std::memmove(destination, source, bytes);
}
void* __tsan_memset(void* destination, int value, size_t bytes) {
  fastconv::emulator::observe_range(destination, bytes, Access::store, FASTCONV_CALLED_FROM);
  return std::memset(destination, value, bytes);
}

// Atomics are turned into calls too. The host code of the same files uses them as well. All are sequentially
// consistent, which is at least as strong as what was asked for.
#define FASTCONV_ATOMIC_UPDATE(bits, name, builtin)                                                          \
  uint##bits##_t __tsan_atomic##bits##_##name(volatile uint##bits##_t* address, uint##bits##_t value, int) { \
    fastconv::emulator::observe(address, bits / 8, Access::atomic, FASTCONV_CALLED_FROM);                    \
    return builtin(address, value, __ATOMIC_SEQ_CST);                                                        \
  }

#define FASTCONV_ATOMICS(bits)                                                                                         \
  uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t* address, int) {                             \
    fastconv::emulator::observe(address, bits / 8, Access::atomic, FASTCONV_CALLED_FROM);                              \
    return __atomic_load_n(address, __ATOMIC_SEQ_CST);                                                                 \
  }                                                                                                                    \
  void __tsan_atomic##bits##_store(volatile uint##bits##_t* address, uint##bits##_t value, int) {                      \
    fastconv::emulator::observe(address, bits / 8, Access::atomic, FASTCONV_CALLED_FROM);                              \
    __atomic_store_n(address, value, __ATOMIC_SEQ_CST);                                                                \
  }                                                                                                                    \
  FASTCONV_ATOMIC_UPDATE(bits, exchange, __atomic_exchange_n)                                                          \
  FASTCONV_ATOMIC_UPDATE(bits, fetch_add, __atomic_fetch_add)                                                          \
  FASTCONV_ATOMIC_UPDATE(bits, fetch_sub, __atomic_fetch_sub)                                                          \
  FASTCONV_ATOMIC_UPDATE(bits, fetch_and, __atomic_fetch_and)                                                          \
  FASTCONV_ATOMIC_UPDATE(bits, fetch_or, __atomic_fetch_or)                                                            \
  FASTCONV_ATOMIC_UPDATE(bits, fetch_xor, __atomic_fetch_xor)                                                          \
  FASTCONV_ATOMIC_UPDATE(bits, fetch_nand, __atomic_fetch_nand)                                                        \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile uint##bits##_t* address, uint##bits##_t* expected,        \
                                                    uint##bits##_t desired, int, int) {                                \
    fastconv::emulator::observe(address, bits / 8, Access::atomic, FASTCONV_CALLED_FROM);                              \
    return __atomic_compare_exchange_n(address, expected, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);         \
  }                                                                                                                    \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile uint##bits##_t* address, uint##bits##_t* expected,          \
                                                  uint##bits##_t desired, int, int) {                                  \
    fastconv::emulator::observe(address, bits / 8, Access::atomic, FASTCONV_CALLED_FROM);                              \
    return __atomic_compare_exchange_n(address, expected, desired, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);          \
  }                                                                                                                    \
  uint##bits##_t __tsan_atomic##bits##_compare_exchange_val(volatile uint##bits##_t* address, uint##bits##_t expected, \
                                                            uint##bits##_t desired, int, int) {                        \
    fastconv::emulator::observe(address, bits / 8, Access::atomic, FASTCONV_CALLED_FROM);                              \
    __atomic_compare_exchange_n(address, &expected, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);               \
    return expected;                                                                                                   \
  }

FASTCONV_ATOMICS(8)
FASTCONV_ATOMICS(16)
FASTCONV_ATOMICS(32)
FASTCONV_ATOMICS(64)

void __tsan_atomic_thread_fence(int) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (fastconv::emulator::active_monitor() != nullptr) fastconv::emulator::active_monitor()->trust_other_blocks();
}
void __tsan_atomic_signal_fence(int) {}
}

#endif
