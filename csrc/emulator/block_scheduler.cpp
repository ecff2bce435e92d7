#include "emulator/block_scheduler.h"

#include "emulator/monitor.h"

namespace fastconv::emulator {
namespace {

// Stacks begin at different cache lines of their pages; all in the same one, they would evict one another.
constexpr uint32_t kStackColours = 64;
constexpr uint32_t kCacheLine = 64;

void enter_thread() {
  current_region().scheduler.thread_main();
}

}  // namespace

BlockView& BlockScheduler::view() {
  return reinterpret_cast<RegionHeader*>(reinterpret_cast<uintptr_t>(this) & ~(kRegionAlign - 1))->view;
}

uint64_t BlockScheduler::random() {  // splitmix64
  uint64_t mixed = (random_state_ += 0x9e3779b97f4a7c15u);
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
  return mixed ^ (mixed >> 31);
}

void BlockScheduler::prepare(const Launch& launch, uint3 block_index) {
  const dim3 block = launch.request->block;
  launch_ = &launch;
  threads_ = alive_ = launch.threads;
  warps_ = (threads_ + kWarpSize - 1) / kWarpSize;
  shuffled_ = launch.shuffled;
  failed_ = false;
  barriers_in_use_ = 0;
  last_exit_ = 0;
  runnable_warps_ = warps_ == kWarpSize ? ~uint32_t{0} : bit(static_cast<uint32_t>(warps_)) - 1;
  for (int w = 0; w < warps_; ++w) {
    const int lanes = threads_ - w * kWarpSize;
    const uint32_t mask = lanes >= kWarpSize ? ~uint32_t{0} : bit(static_cast<uint32_t>(lanes)) - 1;
    warp_[w].runnable = warp_[w].alive = mask;
    warp_[w].begun = 0;
    warp_[w].meetings = 0;
  }
  free_stacks_ = threads_;
  for (int i = 0; i < threads_; ++i) free_stack_[i] = static_cast<uint16_t>(threads_ - 1 - i);
  if (indices_for_.x != block.x || indices_for_.y != block.y || indices_for_.z != block.z) {
    uint3* index = indices_;
    for (uint32_t z = 0; z < block.z; ++z)
      for (uint32_t y = 0; y < block.y; ++y)
        for (uint32_t x = 0; x < block.x; ++x) *index++ = {x, y, z};
    indices_for_ = block;
  }
  BlockView& block_view = view();
  block_view.block_index = block_index;
  block_view.block_dim = block;
  block_view.grid_dim = launch.request->grid;
  for (Barrier& barrier : barrier_) barrier.arrived = barrier.waiting = 0;
}

bool BlockScheduler::run(const Launch& launch, uint3 block_index, uint64_t block, Monitor* monitor) {
  prepare(launch, block_index);
  random_state_ = launch.seed + block;
  monitor_ = monitor;
  current_ = static_cast<uint32_t>(shuffled_ ? pick_at_random() : 0);
  running_ = true;
  if (kCheckedBuild && monitor_ != nullptr) {
    monitor_->begin_block(*this, block);
    set_active_monitor(monitor_);
  }
  fastconv_emulator_switch_context(&host_context_, begin(current_));
  if (kCheckedBuild && monitor_ != nullptr) {
    set_active_monitor(nullptr);
    if (!failed_) monitor_->end_block();
  }
  running_ = false;
  return !failed_;
}

std::string BlockScheduler::thread_text(uint32_t rank) const {
  const uint3 index = indices_[rank];
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " + std::to_string(index.z) + ")";
}

void BlockScheduler::bind(uint32_t stack, uint32_t thread) {
  view().threads[stack] = {indices_[thread], thread};
  warp_[thread / kWarpSize].begun |= bit(thread % kWarpSize);
}

void* BlockScheduler::begin(uint32_t thread) {
  const uint32_t stack = free_stack_[--free_stacks_];
  bind(stack, thread);
  unsigned char* bottom = reinterpret_cast<unsigned char*>(&view()) + kStackBytes * (stack + 1);
  return new_context(bottom, bottom + kStackBytes - (stack % kStackColours) * kCacheLine, enter_thread);
}

// The body of every fiber. A thread that ends hands its stack, still in cache, to one that has not begun: threads that
// never wait all run on the same stack.
void BlockScheduler::thread_main() {
  for (;;) {
    launch_->body(launch_->closure);
    const uint32_t stack = static_cast<uint32_t>((stack_pointer() & (kRegionAlign - 1)) / kStackBytes - 1);
    const int next = exit_thread();
    if (next < 0) return_to_host();
    current_ = static_cast<uint32_t>(next);
    if ((warp_[current_ / kWarpSize].begun & bit(current_ % kWarpSize)) == 0) {
      bind(stack, current_);
      continue;
    }
    free_stack_[free_stacks_++] = static_cast<uint16_t>(stack);
    void* abandoned;
    fastconv_emulator_switch_context(&abandoned, context_[current_]);
  }
}

void BlockScheduler::return_to_host() {
  void* abandoned;
  fastconv_emulator_switch_context(&abandoned, host_context_);
  __builtin_unreachable();
}

void BlockScheduler::fail(Failure why) {
  failed_ = true;
  failure = std::move(why);
  return_to_host();
}

void BlockScheduler::fail(std::string what, const Place& place, std::vector<Failure::Note> notes) {
  fail(Failure{std::move(what), current_, call_chain(place), std::move(notes)});
}

void BlockScheduler::fail_in_operation(std::string what) {
  fail(std::move(what), operation_);
}

int BlockScheduler::pick_at_random() {
  uint32_t warps = runnable_warps_;
  for (uint64_t skipped = random() % static_cast<uint64_t>(__builtin_popcount(warps)); skipped > 0; --skipped) {
    warps &= warps - 1;
  }
  const uint32_t warp = lowest(warps);
  uint32_t lanes = warp_[warp].runnable;
  for (uint64_t skipped = random() % static_cast<uint64_t>(__builtin_popcount(lanes)); skipped > 0; --skipped) {
    lanes &= lanes - 1;
  }
  return static_cast<int>(warp * kWarpSize + lowest(lanes));
}

void BlockScheduler::yield() {
  if (shuffled_) {
    suspend();
    return;
  }
  // To another warp where there is one, so that a polling warp does not keep the block from the thread it polls for.
  const uint32_t self = current_, warp = self / kWarpSize, lane = self % kWarpSize;
  const uint32_t higher = above(warp_[warp].runnable, lane);
  uint32_t next_warp = warp, next_lane = higher != 0 ? lowest(higher) : 0;
  if (higher == 0) {
    const uint32_t higher_warps = above(runnable_warps_, warp);
    next_warp = lowest(higher_warps != 0 ? higher_warps : runnable_warps_);
    next_lane = lowest(warp_[next_warp].runnable);
  }
  resume(next_warp * kWarpSize + next_lane);
}

}  // namespace fastconv::emulator
