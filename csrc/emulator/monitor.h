// Watches the blocks that one thread of the CPU runs, in the checked build: sorts every access by what it touches, and
// hands it to the checks and the counters.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "emulator/access.h"
#include "emulator/access_counter.h"
#include "emulator/block_scheduler.h"
#include "emulator/counters.h"
#include "emulator/module_symbols.h"
#include "emulator/place.h"
#include "emulator/race_clock.h"
#include "emulator/settings.h"
#include "emulator/shared_shadow.h"
#include "emulator/tensor_shadow.h"

namespace fastconv::emulator {

// What the monitors of a launch share.
struct WatchedLaunch {
  // parameters: the kernel's arguments lie between this address and the end of the launching thread's stack.
  WatchedLaunch(const LaunchRequest& request, const Settings& settings, const void* parameters);

  const LaunchRequest& request;
  const Settings settings;
  std::vector<TensorShadow> tensors;
  uintptr_t parameters_begin, parameters_end;
  std::string kernel_symbol;

  std::mutex mutex;  // of what follows
  std::map<AccessKey, AccessTotals> totals;
  std::map<std::string, uint64_t> operations;

  LaunchRecord record() const;
};

class Monitor {
 public:
  Monitor();

  void begin_launch(WatchedLaunch& launch);
  void end_launch();

  void begin_block(BlockScheduler& scheduler, uint64_t block);
  void end_block();

  // Of the thread that runs.
  void access(uintptr_t address, uint32_t bytes, Access kind, const Place& place);
  void count_operation(const std::string& name, uint64_t count);
  // A load of these bytes says that they will not be asked for again.
  void stream(uintptr_t address, uint32_t bytes);
  // The block has ordered itself with other blocks, by an atomic or a fence.
  void trust_other_blocks() { trusts_other_blocks_ = true; }
  // Shared memory as if never written.
  void poison(const void* shared, size_t bytes);

  // Synchronisation, as the scheduler sees it.
  void lanes_met(uint32_t warp, uint32_t lanes, bool whole_warp, const char* operation);
  void block_met();
  void arrive(int barrier, uint32_t thread) { clock_.release(thread, barriers_[barrier]); }
  void leave_barrier(int barrier, uint32_t thread) { clock_.acquire(thread, barriers_[barrier]); }
  void barrier_released();

  RaceClock& clock() { return clock_; }

 private:
  // The place of shared memory in the shadow: dynamic first, then the thread-local segment.
  struct SharedPlace {
    size_t offset = 0;
    uint16_t target = 0;
    bool found = false;
  };

  bool find_shared(uintptr_t address, uint32_t bytes, SharedPlace& place, const Place& from);
  bool readable(uintptr_t address, uint32_t bytes) const;
  void access_shared(const SharedPlace& shared, uintptr_t address, uint32_t bytes, Access kind, const Place& place);
  bool access_tensor(uintptr_t address, uint32_t bytes, Access kind, const Place& place);
  void notice_array(uint16_t index, uintptr_t address, const Place& place);
  [[noreturn]] void out_of_bounds(uintptr_t address, uint32_t bytes, Access kind, const Place& place) const;
  std::string shared_place(uintptr_t address) const;
  uint32_t site_of(const Place& place) const;

  WatchedLaunch* launch_ = nullptr;
  BlockScheduler* scheduler_ = nullptr;
  uint64_t block_ = 0;
  bool check_ = false, count_ = false;
  bool trusts_other_blocks_ = false;
  uintptr_t region_ = 0, dynamic_ = 0;
  ThreadSegment segment_;
  const std::vector<SharedArray>& arrays_;
  RaceClock clock_;
  std::unique_ptr<SharedShadow> shared_;
  RaceClock::Channel barriers_[16];
  AccessCounter counter_;
  size_t last_tensor_ = 0;

  struct ArrayUse {
    bool own = false;      // declared by the kernel itself
    bool touched = false;  // in this launch
  };
  std::vector<ArrayUse> uses_;  // by array
  size_t touched_bytes_ = 0;
  struct ForeignAccess {
    uint16_t array;
    bool own_too;
  };
  std::unordered_map<uint32_t, ForeignAccess> foreign_;  // by site
  std::unordered_map<uint32_t, uint16_t> own_sites_;     // the kernel's array that a site has touched
};

// The monitor of the CUDA thread that runs on this thread of the CPU; null outside of watched launches.
Monitor* active_monitor();
void set_active_monitor(Monitor* monitor);

}  // namespace fastconv::emulator
