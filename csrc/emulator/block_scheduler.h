// One CUDA block on one thread of the CPU: its threads as fibers, who may run, and who waits for whom.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "emulator/context_switch.h"
#include "emulator/lane_bits.h"
#include "emulator/launch.h"
#include "emulator/place.h"
#include "emulator/scheduler.h"
#include "emulator/thread.h"

namespace fastconv::emulator {

class Monitor;

// What all blocks of a launch have in common.
struct Launch {
  const LaunchRequest* request;
  void (*body)(const void*);
  const void* closure;
  int threads;            // of a block
  bool strict = false;    // what hardware lets pass but the programming model does not is an error
  bool shuffled = false;  // the order in which threads run is drawn from `seed`
  uint64_t seed = 0;
};

struct Failure {
  struct Note {
    std::string text;
    std::vector<const void*> chain;  // empty: no place
  };
  std::string what;
  uint32_t thread = 0;  // rank
  std::vector<const void*> chain;
  std::vector<Note> notes;
};

// Why a thread does not run.
enum class Wait : uint8_t { lanes, barrier };

class BlockScheduler {
 public:
  // Runs a block to its end. False where it failed; then `failure` says why. The threads of a failed block are dropped.
  // monitor: null where nothing is watched.
  bool run(const Launch& launch, uint3 block_index, uint64_t block, Monitor* monitor);
  Failure failure;

  // The rest is called by the threads of the block.
  void meet_lanes(uint32_t mask, const WarpOperation& operation, void* deposit, const Place& place);
  int barrier(int barrier, int count, bool predicate, bool waits, const Place& place);
  void yield();
  [[noreturn]] void fail(Failure failure);
  // By the current thread, at a place of its own or at the operation that it is in.
  [[noreturn]] void fail(std::string what, const Place& place, std::vector<Failure::Note> notes = {});
  [[noreturn]] void fail_in_operation(std::string what);
  [[noreturn]] void thread_main();

  const Launch& launch() const { return *launch_; }
  uint32_t current() const { return current_; }
  Monitor* monitor() const { return monitor_; }
  bool running() const { return running_; }
  // "(x, y, z)" of a thread of the block.
  std::string thread_text(uint32_t rank) const;

 private:
  static constexpr int kBarriers = 16;

  struct Meeting {
    uint32_t mask, arrived;
    const WarpOperation* operation;
  };
  struct Warp {
    uint32_t runnable;  // neither waiting nor gone
    uint32_t alive;
    uint32_t begun;
    int meetings;
    Meeting meeting[kWarpSize];  // under way: masks that do not overlap, where the kernel is right
    void* deposits[kWarpSize];
  };
  struct Barrier {
    uint32_t expected;  // 0: all threads that have not exited
    uint32_t arrived, waiting;
    int predicates, result;
    Place place;                // where the first one arrived
    uint32_t first;             // who that was
    uint32_t lanes[kMaxWarps];  // who waits, by warp
  };

  void prepare(const Launch& launch, uint3 block_index);
  void* begin(uint32_t thread);
  void bind(uint32_t stack, uint32_t thread);
  int pick(uint32_t warp, uint32_t lane);
  int pick_at_random();
  void wait(Wait wait, const Place& place);
  void suspend();
  void resume(uint32_t thread);
  int exit_thread();
  void wake(uint32_t warp, uint32_t lanes);
  void complete_meeting(Warp& warp, int index);
  void compare_barriers(const Barrier& barrier, const Place& place);
  [[noreturn]] void refuse_meeting(const Warp& warp, uint32_t mask, const WarpOperation& operation);
  [[noreturn]] void refuse_barrier(int barrier, int count);
  void release(Barrier& barrier);
  [[noreturn]] void return_to_host();
  [[noreturn]] void fail_of_deadlock();
  uint64_t random();

  BlockView& view();

  const Launch* launch_ = nullptr;
  Monitor* monitor_ = nullptr;
  int threads_, alive_, warps_;
  uint32_t current_;
  uint32_t runnable_warps_;
  bool shuffled_, failed_;
  bool running_ = false;
  uint64_t random_state_;
  void* host_context_;
  int free_stacks_;
  uint32_t barriers_in_use_;
  dim3 indices_for_{0, 0, 0};
  uint32_t last_exit_;
  uint16_t free_stack_[kMaxThreads];
  Wait wait_[kMaxThreads];
  Place place_[kMaxThreads];  // where a waiting thread waits
  Place operation_;           // of the current thread
  void* context_[kMaxThreads];
  Warp warp_[kMaxWarps];
  Barrier barrier_[kBarriers];
  uint3 indices_[kMaxThreads];
};

// Inline, so that a waiting thread leaves few frames, and touches few cache lines, on its stack.

// Who runs next; -1 where nobody can. The own warp first: its 32 stacks stay in cache.
inline int BlockScheduler::pick(uint32_t warp, uint32_t lane) {
  if (runnable_warps_ == 0) return -1;
  if (shuffled_) return pick_at_random();
  const uint32_t lanes = warp_[warp].runnable;
  if (lanes != 0) {
    const uint32_t higher = above(lanes, lane);
    return static_cast<int>(warp * kWarpSize + lowest(higher != 0 ? higher : lanes));
  }
  const uint32_t higher = above(runnable_warps_, warp);
  const uint32_t next = lowest(higher != 0 ? higher : runnable_warps_);
  return static_cast<int>(next * kWarpSize + lowest(warp_[next].runnable));
}

// The current thread waits until somebody wakes it.
inline void BlockScheduler::wait(Wait wait, const Place& place) {
  const uint32_t self = current_, warp = self / kWarpSize;
  wait_[self] = wait;
  place_[self] = place;
  warp_[warp].runnable &= ~bit(self % kWarpSize);
  if (warp_[warp].runnable == 0) runnable_warps_ &= ~bit(warp);
  suspend();
}

// Somebody else's turn; the current thread goes on when it is picked again.
inline void BlockScheduler::suspend() {
  const int next = pick(current_ / kWarpSize, current_ % kWarpSize);
  if (next < 0) fail_of_deadlock();
  resume(static_cast<uint32_t>(next));
}

inline void BlockScheduler::resume(uint32_t thread) {
  const uint32_t self = current_;
  if (thread == self) return;
  current_ = thread;
  const bool begun = (warp_[thread / kWarpSize].begun & bit(thread % kWarpSize)) != 0;
  fastconv_emulator_switch_context(&context_[self], begun ? context_[thread] : begin(thread));
}

inline void BlockScheduler::wake(uint32_t warp, uint32_t lanes) {
  warp_[warp].runnable |= lanes;
  runnable_warps_ |= bit(warp);
}

// The memory at the start of a worker's region of stacks.
struct RegionHeader {
  BlockView view;
  BlockScheduler scheduler;
};
static_assert(sizeof(RegionHeader) <= kStackBytes, "the header takes the place of the first stack");

// Stacks and dynamic shared memory for the blocks that one thread of the CPU runs, kept from block to block.
class Region {
 public:
  Region();
  ~Region();
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  uintptr_t address() const { return reinterpret_cast<uintptr_t>(memory_); }
  RegionHeader& header() { return *reinterpret_cast<RegionHeader*>(memory_); }
  // Makes the stacks of this many threads usable.
  void reserve(int threads);

 private:
  unsigned char* memory_;
  int reserved_ = 0;
};

// The region that the running CUDA thread belongs to.
inline RegionHeader& current_region() {
  return *reinterpret_cast<RegionHeader*>(stack_pointer() & ~(kRegionAlign - 1));
}

}  // namespace fastconv::emulator
