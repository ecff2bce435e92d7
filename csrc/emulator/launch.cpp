// What CUDA refuses to launch, and the blocks of a launch handed to threads of the CPU.
#include "emulator/launch.h"

#include <memory>
#include <mutex>

#include "emulator/block_scheduler.h"
#include "emulator/device.h"
#include "emulator/thread_pool.h"

namespace fastconv::emulator {
namespace {

std::string text_of(const uint3& index) {
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " + std::to_string(index.z) + ")";
}

void refuse(const LaunchRequest& request, const std::string& why) {
  throw KernelError("kernel " + std::string(request.kernel) + " cannot be launched: " + why);
}

void validate(const LaunchRequest& request, const Device& device) {
  const dim3 grid = request.grid, block = request.block;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    refuse(request, "grid " + text_of(grid) + ", accepted are 1 to 2147483647, 65535 and 65535 blocks");
  }
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || block.x > 1024 || block.y > 1024 || block.z > 64 || threads > kMaxThreads) {
    refuse(request, "block " + text_of(block) + ", accepted are 1 to 1024, 1024 and 64 threads, together 1 to 1024");
  }
  if (threads > static_cast<uint64_t>(request.max_threads)) {
    refuse(request,
           std::to_string(threads) + " threads in a block, its launch bound is " + std::to_string(request.max_threads));
  }
  if (request.dynamic_shared_bytes > device.block_shared_bytes) {
    refuse(request, std::to_string(request.dynamic_shared_bytes) + " bytes of shared memory, a block of " +
                        device.name + " has at most " + std::to_string(device.block_shared_bytes));
  }
}

// Each thread of the CPU that runs blocks keeps its stacks.
Region& own_region() {
  thread_local std::unique_ptr<Region> region;
  if (!region) region = std::make_unique<Region>();
  return *region;
}

class Run : public BlockJob {
 public:
  explicit Run(const Launch& launch)
      : BlockJob(uint64_t{launch.request->grid.x} * launch.request->grid.y * launch.request->grid.z), launch_(launch) {}

  void run_blocks() override {
    Region& region = own_region();
    region.reserve(launch_.threads);
    const dim3 grid = launch_.request->grid;
    for (uint64_t block = take(); block < blocks(); block = take()) {
      const uint3 index{static_cast<uint32_t>(block % grid.x), static_cast<uint32_t>(block / grid.x % grid.y),
                        static_cast<uint32_t>(block / grid.x / grid.y)};
      BlockScheduler& scheduler = region.header().scheduler;
      if (!scheduler.run(launch_, index, launch_.seed + block)) {
        report(block, index, scheduler.failure);
        stop();
      }
    }
  }

  void throw_failure() const {
    if (!report_.empty()) throw KernelError(report_);
  }

 private:
  // Of several failures the one of the first block is kept, so that a seed repeats it.
  void report(uint64_t block, uint3 index, const Failure& failure) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!report_.empty() && first_ < block) return;
    first_ = block;
    const dim3 size = launch_.request->block;
    const uint3 thread{failure.thread % size.x, failure.thread / size.x % size.y, failure.thread / size.x / size.y};
    report_ = "kernel " + std::string(launch_.request->kernel) + ", block " + text_of(index) + ", thread " +
              text_of(thread) + ": " + failure.what;
  }

  const Launch& launch_;
  std::mutex mutex_;
  std::string report_;
  uint64_t first_ = 0;
};

}  // namespace

namespace detail {

void launch(const LaunchRequest& request, void (*thread_body)(const void*), const void* closure) {
  validate(request, current_device());
  Launch launch{&request, thread_body, closure, static_cast<int>(request.block.x * request.block.y * request.block.z)};
  Run run(launch);
  run_on_threads(run, worker_threads());
  run.throw_failure();
}

}  // namespace detail
}  // namespace fastconv::emulator
