// One CUDA block on one thread of the CPU: its threads as fibers, who may run, and who waits for whom.
#pragma once

#include <cstdint>
#include <string>

#include "emulator/launch.h"
#include "emulator/scheduler.h"
#include "emulator/thread.h"

namespace fastconv::emulator {

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
  std::string what;
  uint32_t thread = 0;  // rank
};

// Why a thread does not run.
enum class Wait : uint8_t { none, lanes, barrier };

class BlockScheduler {
 public:
  // Runs a block to its end. False where it failed; then `failure` says why. The threads of a failed block are dropped.
  bool run(const Launch& launch, uint3 block_index, uint64_t order_seed);
  Failure failure;

  // The rest is called by the threads of the block.
  void meet_lanes(uint32_t mask, const WarpOperation& operation, void* deposit, const void* site);
  int barrier(int barrier, int count, bool predicate, bool waits, const void* site);
  void yield();
  [[noreturn]] void fail(std::string what);
  [[noreturn]] void fail(std::string what, uint32_t thread);
  [[noreturn]] void thread_main();

  const Launch& launch() const { return *launch_; }
  uint32_t current() const { return current_; }

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
    const void* site;  // where the first one arrived
    uint32_t first;
    uint32_t lanes[kMaxWarps];  // who waits, by warp
  };

  void prepare(const Launch& launch, uint3 block_index, uint64_t order_seed);
  void* begin(uint32_t thread);
  void bind(uint32_t stack, uint32_t thread);
  int pick(uint32_t warp, uint32_t lane);
  int pick_at_random();
  void suspend();
  int exit_thread();
  void wake(uint32_t warp, uint32_t lanes);
  void complete_meeting(Warp& warp, int index);
  void release(Barrier& barrier);
  [[noreturn]] void return_to_host();
  std::string describe_deadlock() const;
  uint64_t random();

  BlockView& view();

  const Launch* launch_;
  int threads_, alive_, warps_;
  uint32_t current_;
  uint32_t runnable_warps_;
  bool shuffled_, failed_;
  uint64_t random_state_;
  void* host_context_;
  int free_stacks_;
  uint32_t barriers_in_use_;
  dim3 indices_for_{0, 0, 0};
  uint32_t last_exit_;
  uint16_t free_stack_[kMaxThreads];
  Wait wait_[kMaxThreads];
  const void* site_[kMaxThreads];  // where a waiting thread waits
  void* context_[kMaxThreads];
  Warp warp_[kMaxWarps];
  Barrier barrier_[kBarriers];
  uint3 indices_[kMaxThreads];
};

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
