// Threads of the CPU that run the blocks of a launch.
#pragma once

#include <atomic>
#include <cstdint>

namespace fastconv::emulator {

class BlockJob {
 public:
  explicit BlockJob(uint64_t blocks) : blocks_(blocks) {}
  virtual ~BlockJob() = default;

  // Runs blocks that it takes until none are left. Called by several threads at once; must not throw.
  virtual void run_blocks() = 0;

  uint64_t blocks() const { return blocks_; }
  bool exhausted() const { return next_.load(std::memory_order_relaxed) >= blocks_; }

 protected:
  uint64_t take() { return next_.fetch_add(1, std::memory_order_relaxed); }
  void stop() { next_.store(blocks_, std::memory_order_relaxed); }

 private:
  const uint64_t blocks_;
  std::atomic<uint64_t> next_{0};
};

// The caller and up to threads - 1 others run the job; returns when it is done. Works in a forked child, and from
// several threads at once.
void run_on_threads(BlockJob& job, int threads);

}  // namespace fastconv::emulator
