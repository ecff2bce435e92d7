// Address space for the stacks, and their guard pages.
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <new>

#include "emulator/block_scheduler.h"
#include "emulator/device.h"

namespace fastconv::emulator {
namespace {

// A guard page splits a mapping in two, and a process may have some 65,000 mappings. Past this many stacks there are no
// guards; the canary below each stack is then all that tells of an overflow.
std::atomic<int> guards_left{8192};

constexpr size_t kRegionBytes = kStackBytes * (kMaxThreads + 1);
static_assert(kRegionBytes <= kRegionAlign, "a thread finds its region by masking");

}  // namespace

Region::Region() {
  const size_t reserved = kRegionAlign + kRegionBytes;
  void* memory = mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  const uintptr_t first = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t aligned = (first + kRegionAlign - 1) & ~(kRegionAlign - 1);
  if (aligned > first) munmap(memory, aligned - first);
  if (first + reserved > aligned + kRegionBytes) {
    munmap(reinterpret_cast<void*>(aligned + kRegionBytes), first + reserved - aligned - kRegionBytes);
  }
  memory_ = reinterpret_cast<unsigned char*>(aligned);
  void* shared = mmap(nullptr, kMostSharedBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED || mprotect(memory_, kStackBytes, PROT_READ | PROT_WRITE) != 0) {
    munmap(memory_, kRegionBytes);
    if (shared != MAP_FAILED) munmap(shared, kMostSharedBytes);
    throw std::bad_alloc();
  }
  new (memory_) RegionHeader();
  header().view.dynamic_shared = static_cast<unsigned char*>(shared);
}

Region::~Region() {
  munmap(header().view.dynamic_shared, kMostSharedBytes);
  header().~RegionHeader();
  munmap(memory_, kRegionBytes);
}

void Region::reserve(int threads) {
  if (threads <= reserved_) return;
  unsigned char* first = memory_ + kStackBytes * (1 + static_cast<size_t>(reserved_));
  const size_t bytes = kStackBytes * static_cast<size_t>(threads - reserved_);
  if (mprotect(first, bytes, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  for (int stack = reserved_; stack < threads; ++stack, first += kStackBytes) {
    if (guards_left.fetch_sub(1, std::memory_order_relaxed) > 0) {
      mprotect(first, page, PROT_NONE);
    } else {
      guards_left.fetch_add(1, std::memory_order_relaxed);
    }
  }
  reserved_ = threads;
}

}  // namespace fastconv::emulator
