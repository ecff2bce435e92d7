// What CUDA refuses to launch, and the blocks of a launch handed to threads of the CPU.
#include "emulator/launch.h"

#include <memory>
#include <mutex>
#include <numeric>

#include "emulator/block_scheduler.h"
#include "emulator/device.h"
#include "emulator/fault.h"
#include "emulator/launch_recorder.h"
#include "emulator/module_symbols.h"
#include "emulator/monitor.h"
#include "emulator/settings.h"
#include "emulator/thread_pool.h"

namespace fastconv::emulator {
namespace {

std::string text_of(const uint3& index) {
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " + std::to_string(index.z) + ")";
}

[[noreturn]] void refuse(const LaunchRequest& request, const std::string& why) {
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
  const size_t fixed = static_shared_bytes(request.function);
  if (fixed > kStaticSharedBytes) {
    refuse(request, std::to_string(fixed) + " bytes of static shared memory, a kernel may declare at most " +
                        std::to_string(kStaticSharedBytes));
  }
  if (fixed + request.dynamic_shared_bytes > device.block_shared_bytes) {
    refuse(request, std::to_string(fixed + request.dynamic_shared_bytes) + " bytes of shared memory (" +
                        std::to_string(fixed) + " static), a block of " + device.name + " has at most " +
                        std::to_string(device.block_shared_bytes));
  }
}

// What each thread of the CPU that runs blocks keeps: stacks, and in the checked build what it knows of shared memory.
struct Worker {
  Region region;
  FaultStack fault_stack{region};
  std::unique_ptr<Monitor> monitor;
};

Worker& own_worker() {
  thread_local std::unique_ptr<Worker> worker;
  if (!worker) worker = std::make_unique<Worker>();
  return *worker;
}

// Blocks in the order of their numbers or, shuffled, in steps that have no factor in common with their count.
class BlockOrder {
 public:
  BlockOrder(uint64_t blocks, bool shuffled, uint64_t seed) : blocks_(blocks) {
    if (!shuffled) return;
    first_ = seed % blocks;
    step_ = (seed * 0x9e3779b97f4a7c15u >> 33) % blocks;
    while (std::gcd(step_, blocks) != 1) ++step_;
  }
  uint64_t operator[](uint64_t turn) const {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(turn) * step_ + first_) % blocks_);
  }

 private:
  uint64_t blocks_, first_ = 0, step_ = 1;
};

class Run : public BlockJob {
 public:
  Run(const Launch& launch, WatchedLaunch* watched)
      : BlockJob(uint64_t{launch.request->grid.x} * launch.request->grid.y * launch.request->grid.z),
        launch_(launch),
        watched_(watched),
        order_(blocks(), launch.shuffled, launch.seed) {}

  void run_blocks() override {
    try {
      Worker& worker = own_worker();
      worker.region.reserve(launch_.threads);
      if constexpr (kCheckedBuild) {
        if (watched_ != nullptr) {
          if (!worker.monitor) worker.monitor = std::make_unique<Monitor>();
          worker.monitor->begin_launch(*watched_);
          run_blocks_of(worker, worker.monitor.get());
          worker.monitor->end_launch();
          return;
        }
      }
      run_blocks_of(worker, nullptr);
    } catch (const std::exception& error) {
      keep(0, "kernel " + std::string(launch_.request->kernel) + ": the emulator failed: " + error.what());
      stop();
    }
  }

  void throw_failure() const {
    if (!report_.empty()) throw KernelError(report_);
  }

 private:
  void run_blocks_of(Worker& worker, Monitor* monitor) {
    const dim3 grid = launch_.request->grid;
    BlockScheduler& scheduler = worker.region.header().scheduler;
    for (uint64_t turn = take(); turn < blocks(); turn = take()) {
      const uint64_t block = order_[turn];
      const uint3 index{static_cast<uint32_t>(block % grid.x), static_cast<uint32_t>(block / grid.x % grid.y),
                        static_cast<uint32_t>(block / grid.x / grid.y)};
      if (!scheduler.run(launch_, index, block, monitor)) {
        keep(turn, report(index, scheduler));
        stop();
      }
    }
  }

  // Of several failures the one whose turn came first is kept, so that a seed repeats it.
  void keep(uint64_t turn, std::string report) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!report_.empty() && first_ < turn) return;
    first_ = turn;
    report_ = std::move(report);
  }

  std::string report(uint3 block, const BlockScheduler& scheduler) const {
    const Failure& failure = scheduler.failure;
    std::string text = "kernel " + std::string(launch_.request->kernel) + ", block " + text_of(block) + ", thread " +
                       scheduler.thread_text(failure.thread) + ": " + failure.what;
    if (!failure.chain.empty()) text += "\n  at " + describe(failure.chain);
    for (const Failure::Note& note : failure.notes) {
      text += "\n  " + note.text + (note.chain.empty() ? "" : " at " + describe(note.chain));
    }
    if (launch_.strict || launch_.shuffled) {
      text += "\n  repeat with: fastconv.emulator.check(seed=" + std::to_string(launch_.seed) + ", order=\"" +
              (launch_.shuffled ? "shuffled" : "natural") + "\")";
    }
    return text;
  }

  const Launch& launch_;
  WatchedLaunch* const watched_;
  const BlockOrder order_;
  std::mutex mutex_;
  std::string report_;
  uint64_t first_ = 0;
};

}  // namespace

namespace detail {

void launch(const LaunchRequest& request, void (*thread_body)(const void*), const void* closure) {
  if (LaunchRecorder* recorder = LaunchRecorder::current()) return recorder->note(request);
  validate(request, current_device());
  report_faults();
  const Settings chosen = settings();
  Launch launch{&request, thread_body, closure, static_cast<int>(request.block.x * request.block.y * request.block.z)};
  launch.strict = chosen.check;
  launch.shuffled = chosen.shuffled;
  launch.seed = chosen.seed;
  std::unique_ptr<WatchedLaunch> watched;
  if constexpr (kCheckedBuild) {
    if (chosen.check || chosen.count) {
      watched = std::make_unique<WatchedLaunch>(request, chosen, __builtin_frame_address(0));
    }
  }
  Run run(launch, watched.get());
  run_on_threads(run, worker_threads());
  run.throw_failure();
  if constexpr (kCheckedBuild) {
    if (chosen.count) keep_launch_record(watched->record());
  }
}

}  // namespace detail
}  // namespace fastconv::emulator
