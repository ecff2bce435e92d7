// Where threads wait for one another: lanes of a warp, barriers of a block, and what an exit means to both.
#include <atomic>

#include "emulator/block_scheduler.h"
#include "emulator/monitor.h"

namespace fastconv::emulator {
namespace {

std::string hexadecimal(uint32_t value) {
  static const char* digits = "0123456789abcdef";
  std::string text = "0x";
  for (int shift = 28; shift >= 0; shift -= 4) text += digits[(value >> shift) & 15];
  return text;
}

}  // namespace

void BlockScheduler::meet_lanes(uint32_t mask, const WarpOperation& operation, void* deposit, const Place& place) {
  const uint32_t self = current_, lane = self % kWarpSize;
  Warp& warp = warp_[self / kWarpSize];
  operation_ = place;
  if ((mask & bit(lane)) == 0) refuse_meeting(warp, mask, operation);
  int index = 0;
  while (index < warp.meetings && warp.meeting[index].mask != mask) ++index;
  Meeting& meeting = warp.meeting[index];
  if (index == warp.meetings) {
    meeting = {mask, 0, &operation};
    ++warp.meetings;
  } else if (meeting.operation != &operation) {
    refuse_meeting(warp, mask, operation);
  }
  meeting.arrived |= bit(lane);
  warp.deposits[lane] = deposit;
  if (meeting.arrived == (mask & warp.alive)) {
    complete_meeting(warp, index);
    if (shuffled_) suspend();
    return;
  }
  wait(Wait::lanes, place);
}

// Not in line with what it is for: the strings would widen the frame of every thread that waits.
__attribute__((noinline, cold)) void BlockScheduler::refuse_meeting(const Warp& warp, uint32_t mask,
                                                                    const WarpOperation& operation) {
  const uint32_t lane = current_ % kWarpSize;
  if ((mask & bit(lane)) == 0) {
    fail_in_operation(std::string(operation.name) + " by lane " + std::to_string(lane) + ", which its mask " +
                      hexadecimal(mask) + " does not name");
  }
  int index = 0;
  while (warp.meeting[index].mask != mask) ++index;
  fail_in_operation("lanes of the mask " + hexadecimal(mask) +
                    " meet in different operations: " + warp.meeting[index].operation->name + " and " + operation.name);
}

void BlockScheduler::complete_meeting(Warp& warp, int index) {
  const Meeting meeting = warp.meeting[index];
  warp.meeting[index] = warp.meeting[--warp.meetings];
  const uint32_t number = static_cast<uint32_t>(&warp - warp_);
  if (kCheckedBuild && monitor_ != nullptr) {
    monitor_->lanes_met(number, meeting.arrived, meeting.arrived == warp.alive, meeting.operation->name);
    set_active_monitor(nullptr);  // what the operation reads and writes are registers of other lanes
  }
  if (meeting.operation->complete != nullptr) meeting.operation->complete(warp.deposits, meeting.arrived);
  if (kCheckedBuild && monitor_ != nullptr) set_active_monitor(monitor_);
  wake(number, meeting.arrived);
}

int BlockScheduler::barrier(int id, int count, bool predicate, bool waits, const Place& place) {
  const uint32_t self = current_, warp = self / kWarpSize;
  operation_ = place;
  const bool possible = id >= 0 && id < kBarriers && count >= 0 && count % kWarpSize == 0 && count <= kMaxThreads;
  if (!possible || (count == 0 && !waits)) refuse_barrier(id, count);
  Barrier& barrier = barrier_[id];
  if (barrier.arrived == 0) {
    barrier.expected = static_cast<uint32_t>(count);
    barrier.predicates = 0;
    barrier.place = place;
    barrier.first = self;
    for (int w = 0; w < warps_; ++w) barrier.lanes[w] = 0;
    barriers_in_use_ |= bit(static_cast<uint32_t>(id));
  } else if (barrier.expected != static_cast<uint32_t>(count)) {
    refuse_barrier(id, count);
  }
  if (launch_->strict && count == 0) compare_barriers(barrier, place);
  if (kCheckedBuild && monitor_ != nullptr && count != 0) monitor_->arrive(id, self);
  ++barrier.arrived;
  barrier.predicates += predicate ? 1 : 0;
  if (waits) {
    ++barrier.waiting;
    barrier.lanes[warp] |= bit(self % kWarpSize);
  }
  const uint32_t expected = barrier.expected != 0 ? barrier.expected : static_cast<uint32_t>(alive_);
  if (barrier.arrived >= expected) {
    release(barrier);
    if (shuffled_ && waits) suspend();
    return barrier.result;
  }
  if (!waits) return 0;
  wait(Wait::barrier, place);
  return barrier.result;
}

__attribute__((noinline, cold)) void BlockScheduler::refuse_barrier(int id, int count) {
  const std::string barrier = "barrier " + std::to_string(id);
  if (id < 0 || id >= kBarriers) fail_in_operation(barrier + " does not exist; a block has 0 to 15");
  if (count <= 0 || count % kWarpSize != 0 || count > kMaxThreads) {
    fail_in_operation(barrier + " for " + std::to_string(count) +
                      " threads; the count must be a multiple of 32 up to 1024");
  }
  fail_in_operation(barrier + " is waited for with different counts: " + std::to_string(barrier_[id].expected) +
                    " and " + std::to_string(count));
}

__attribute__((noinline)) void BlockScheduler::compare_barriers(const Barrier& barrier, const Place& place) {
  if (same_line(barrier.place.site, place.site)) return;
  fail("divergent barrier: this thread waits at one barrier, another thread of the block at another", place,
       {{"thread " + thread_text(barrier.first) + " waits", call_chain(barrier.place)}});
}

void BlockScheduler::release(Barrier& barrier) {
  const int id = static_cast<int>(&barrier - barrier_);
  if (launch_->strict && barrier.expected == 0 && alive_ < threads_) {
    fail(Failure{"exited although other threads of the block wait for it at a barrier",
                 last_exit_,
                 {},
                 {{"thread " + thread_text(barrier.first) + " waits", call_chain(barrier.place)}}});
  }
  barriers_in_use_ &= ~bit(static_cast<uint32_t>(id));
  barrier.result = barrier.predicates;
  const bool whole_block = barrier.waiting == static_cast<uint32_t>(alive_);
  barrier.arrived = barrier.waiting = 0;
  for (int w = 0; w < warps_; ++w) {
    if (barrier.lanes[w] != 0) wake(static_cast<uint32_t>(w), barrier.lanes[w]);
  }
  if (!kCheckedBuild || monitor_ == nullptr) return;
  if (whole_block) {
    monitor_->block_met();
    return;
  }
  for (uint32_t w = 0; w < static_cast<uint32_t>(warps_); ++w) {
    for (uint32_t left = barrier.lanes[w]; left != 0; left &= left - 1) {
      monitor_->leave_barrier(id, w * kWarpSize + static_cast<uint32_t>(__builtin_ctz(left)));
    }
  }
  monitor_->barrier_released();
}

// Hardware counts a thread that has exited as arrived, everywhere. Returns who runs next, -1 where the block is done.
int BlockScheduler::exit_thread() {
  const uint32_t self = current_, lane = self % kWarpSize;
  Warp& warp = warp_[self / kWarpSize];
  warp.alive &= ~bit(lane);
  warp.runnable &= ~bit(lane);
  if (warp.runnable == 0) runnable_warps_ &= ~bit(self / kWarpSize);
  last_exit_ = self;
  if (--alive_ == 0) return -1;
  for (int index = warp.meetings - 1; index >= 0; --index) {
    const Meeting& meeting = warp.meeting[index];
    if ((meeting.mask & bit(lane)) != 0 && meeting.arrived == (meeting.mask & warp.alive)) {
      complete_meeting(warp, index);
    }
  }
  for (uint32_t in_use = barriers_in_use_; in_use != 0; in_use &= in_use - 1) {
    Barrier& barrier = barrier_[__builtin_ctz(in_use)];
    if (barrier.expected == 0 && barrier.arrived == static_cast<uint32_t>(alive_)) release(barrier);
  }
  const int next = pick(self / kWarpSize, lane);
  if (next < 0) fail_of_deadlock();
  return next;
}

void BlockScheduler::fail_of_deadlock() {
  Failure deadlock;
  deadlock.what = "deadlock: no thread of the block can go on";
  if (alive_ < threads_) deadlock.what += ", " + std::to_string(threads_ - alive_) + " have exited";
  struct Group {
    Place place;
    uint32_t first;
    int threads;
  };
  std::vector<Group> groups;
  for (uint32_t thread = 0; thread < static_cast<uint32_t>(threads_); ++thread) {
    if ((warp_[thread / kWarpSize].alive & bit(thread % kWarpSize)) == 0) continue;
    size_t group = 0;
    while (group < groups.size() && groups[group].place.site != place_[thread].site) ++group;
    if (group == groups.size()) groups.push_back({place_[thread], thread, 0});
    ++groups[group].threads;
  }
  deadlock.thread = groups[0].first;
  deadlock.chain = call_chain(groups[0].place);
  constexpr size_t kMostGroups = 8;
  for (size_t group = 0; group < groups.size() && group < kMostGroups; ++group) {
    const bool at_barrier = wait_[groups[group].first] == Wait::barrier;
    deadlock.notes.push_back({std::to_string(groups[group].threads) + " threads, " + thread_text(groups[group].first) +
                                  " the first of them, wait " +
                                  (at_barrier ? "at a barrier" : "for lanes of their warp"),
                              call_chain(groups[group].place)});
  }
  fail(std::move(deadlock));
}

void meet_lanes(uint32_t mask, const WarpOperation& operation, void* deposit) {
  current_region().scheduler.meet_lanes(mask, operation, deposit, FASTCONV_CALLED_FROM);
}

int barrier_sync(int barrier, int count, bool predicate) {
  return current_region().scheduler.barrier(barrier, count, predicate, true, FASTCONV_CALLED_FROM);
}

void barrier_arrive(int barrier, int count) {
  current_region().scheduler.barrier(barrier, count, false, false, FASTCONV_CALLED_FROM);
}

void yield_thread() {
  current_region().scheduler.yield();
}

void memory_fence() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

void fail(const std::string& what) {
  current_region().scheduler.fail_in_operation(what);
}

[[noreturn]] void fail_of_condition(const char* what);  // ptx/require.h

void fail_of_condition(const char* what) {
  fail(what);
}

}  // namespace fastconv::emulator
