#include "emulator/async_copy.h"

#if FASTCONV_EMULATOR_CHECKED

#include <vector>

#include "emulator/settings.h"
#include "emulator/thread.h"

namespace fastconv::emulator {
namespace {

struct PendingCopy {
  AsyncCopy copy;
  uint32_t group;
};

// Of one CUDA thread. Groups are numbered as they are committed; `open` is the one that is being filled.
struct ThreadCopies {
  std::vector<PendingCopy> pending;
  uint32_t open = 0;
};

// By rank, for the block that this thread of the CPU runs.
std::vector<ThreadCopies>& block_copies() {
  static thread_local std::vector<ThreadCopies> copies(kMaxThreads);
  return copies;
}

uint64_t random() {
  static thread_local uint64_t state = settings().seed * 2 + 1;
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

}  // namespace

bool defer_async_copy(const AsyncCopy& copy) {
  if (!settings().check) return false;
  ThreadCopies& own = block_copies()[current_thread().rank];
  own.pending.push_back({copy, own.open});
  return true;
}

void commit_async_copies() {
  ++block_copies()[current_thread().rank].open;
}

bool take_landing_copy(int pending_groups, AsyncCopy& copy) {
  ThreadCopies& own = block_copies()[current_thread().rank];
  size_t due = 0;  // groups are in order, so what is due is at the front
  while (due < own.pending.size() && own.pending[due].group + pending_groups < own.open) ++due;
  if (due == 0) return false;
  const auto chosen = own.pending.begin() + random() % due;
  copy = chosen->copy;
  own.pending.erase(chosen);
  return true;
}

void forget_async_copies() {
  for (ThreadCopies& copies : block_copies()) {
    copies.pending.clear();
    copies.open = 0;
  }
}

}  // namespace fastconv::emulator

#endif
