// Where threads wait for one another: lanes of a warp, barriers of a block, and what an exit means to both.
#include "emulator/block_scheduler.h"

namespace fastconv::emulator {
namespace {

constexpr uint32_t bit(uint32_t lane) {
  return uint32_t{1} << lane;
}

std::string hexadecimal(uint32_t value) {
  static const char* digits = "0123456789abcdef";
  std::string text = "0x";
  for (int shift = 28; shift >= 0; shift -= 4) text += digits[(value >> shift) & 15];
  return text;
}

}  // namespace

void BlockScheduler::meet_lanes(uint32_t mask, const WarpOperation& operation, void* deposit, const void* site) {
  const uint32_t self = current_, lane = self % kWarpSize;
  Warp& warp = warp_[self / kWarpSize];
  if ((mask & bit(lane)) == 0) {
    fail(std::string(operation.name) + " by lane " + std::to_string(lane) + ", which its mask " + hexadecimal(mask) +
         " does not name");
  }
  int index = 0;
  while (index < warp.meetings && warp.meeting[index].mask != mask) ++index;
  Meeting& meeting = warp.meeting[index];
  if (index == warp.meetings) {
    meeting = {mask, 0, &operation};
    ++warp.meetings;
  } else if (meeting.operation != &operation) {
    fail(std::string("lanes of the mask ") + hexadecimal(mask) +
         " meet in different operations: " + meeting.operation->name + " and " + operation.name);
  }
  meeting.arrived |= bit(lane);
  warp.deposits[lane] = deposit;
  if (meeting.arrived == (mask & warp.alive)) {
    complete_meeting(warp, index);
    if (shuffled_) suspend();
    return;
  }
  wait_[self] = Wait::lanes;
  site_[self] = site;
  warp.runnable &= ~bit(lane);
  if (warp.runnable == 0) runnable_warps_ &= ~bit(self / kWarpSize);
  suspend();
}

void BlockScheduler::complete_meeting(Warp& warp, int index) {
  const Meeting meeting = warp.meeting[index];
  warp.meeting[index] = warp.meeting[--warp.meetings];
  if (meeting.operation->complete != nullptr) meeting.operation->complete(warp.deposits, meeting.arrived);
  wake(static_cast<uint32_t>(&warp - warp_), meeting.arrived);
}

int BlockScheduler::barrier(int id, int count, bool predicate, bool waits, const void* site) {
  const uint32_t self = current_, warp = self / kWarpSize;
  if (id < 0 || id >= kBarriers) fail("barrier " + std::to_string(id) + " does not exist; a block has 0 to 15");
  if (count < 0 || count % kWarpSize != 0 || count > kMaxThreads || (count == 0 && !waits)) {
    fail("barrier " + std::to_string(id) + " for " + std::to_string(count) +
         " threads; the count must be a multiple of 32 up to 1024");
  }
  Barrier& barrier = barrier_[id];
  if (barrier.arrived == 0) {
    barrier.expected = static_cast<uint32_t>(count);
    barrier.predicates = 0;
    barrier.site = site;
    barrier.first = self;
    for (int w = 0; w < warps_; ++w) barrier.lanes[w] = 0;
    barriers_in_use_ |= bit(static_cast<uint32_t>(id));
  } else if (barrier.expected != static_cast<uint32_t>(count)) {
    fail("barrier " + std::to_string(id) + " is waited for with different counts: " + std::to_string(barrier.expected) +
         " and " + std::to_string(count));
  }
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
  wait_[self] = Wait::barrier;
  site_[self] = site;
  warp_[warp].runnable &= ~bit(self % kWarpSize);
  if (warp_[warp].runnable == 0) runnable_warps_ &= ~bit(warp);
  suspend();
  return barrier.result;
}

void BlockScheduler::release(Barrier& barrier) {
  if (launch_->strict && barrier.expected == 0 && alive_ < threads_) {
    fail("exited although other threads of the block wait for it at a barrier", last_exit_);
  }
  barriers_in_use_ &= ~bit(static_cast<uint32_t>(&barrier - barrier_));
  barrier.result = barrier.predicates;
  barrier.arrived = barrier.waiting = 0;
  for (int w = 0; w < warps_; ++w) {
    if (barrier.lanes[w] != 0) wake(static_cast<uint32_t>(w), barrier.lanes[w]);
  }
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
  if (next < 0) fail(describe_deadlock());
  return next;
}

std::string BlockScheduler::describe_deadlock() const {
  int at_barriers = 0, at_lanes = 0;
  for (int thread = 0; thread < threads_; ++thread) {
    const Warp& warp = warp_[thread / kWarpSize];
    if ((warp.alive & bit(static_cast<uint32_t>(thread % kWarpSize))) == 0) continue;
    (wait_[thread] == Wait::barrier ? at_barriers : at_lanes) += 1;
  }
  return "deadlock: " + std::to_string(at_barriers) + " threads wait at a barrier, " + std::to_string(at_lanes) +
         " wait for lanes of their warp, " + std::to_string(threads_ - alive_) + " have exited";
}

void meet_lanes(uint32_t mask, const WarpOperation& operation, void* deposit) {
  current_region().scheduler.meet_lanes(mask, operation, deposit, __builtin_return_address(0));
}

int barrier_sync(int barrier, int count, bool predicate) {
  return current_region().scheduler.barrier(barrier, count, predicate, true, __builtin_return_address(0));
}

void barrier_arrive(int barrier, int count) {
  current_region().scheduler.barrier(barrier, count, false, false, __builtin_return_address(0));
}

void yield_thread() {
  current_region().scheduler.yield();
}

void fail(const std::string& what) {
  current_region().scheduler.fail(what);
}

}  // namespace fastconv::emulator
