#include "emulator/thread_pool.h"

#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <list>
#include <mutex>
#include <thread>

namespace fastconv::emulator {
namespace {

class Pool {
 public:
  void run(BlockJob& job, int threads) {
    const uint64_t helpers = std::min<uint64_t>(static_cast<uint64_t>(threads - 1), job.blocks() - 1);
    if (helpers == 0) {
      job.run_blocks();
      return;
    }
    std::unique_lock<std::mutex> lock(mutex_);
    while (started_ < threads - 1) {
      std::thread([this] { serve(); }).detach();
      ++started_;
    }
    const auto place = jobs_.insert(jobs_.end(), Entry{&job, static_cast<int>(helpers), 0});
    lock.unlock();
    for (uint64_t i = 0; i < helpers; ++i) wanted_.notify_one();
    job.run_blocks();
    lock.lock();
    place->wanted = 0;
    done_.wait(lock, [&] { return place->running == 0; });
    jobs_.erase(place);
  }

 private:
  struct Entry {
    BlockJob* job;
    int wanted;   // helpers that may still join
    int running;  // helpers at work
  };

  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      auto open = jobs_.end();
      wanted_.wait(lock, [&] {
        open = std::find_if(jobs_.begin(), jobs_.end(),
                            [](const Entry& entry) { return entry.wanted > 0 && !entry.job->exhausted(); });
        return open != jobs_.end();
      });
      --open->wanted;
      ++open->running;
      lock.unlock();
      open->job->run_blocks();
      lock.lock();
      if (--open->running == 0) done_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wanted_, done_;
  std::list<Entry> jobs_;
  int started_ = 0;
};

// A forked child has the parent's pool but none of its threads, and perhaps its locked mutex: it starts a pool of its
// own. Pools are never freed: their threads sleep until the process ends.
Pool& pool() {
  static std::mutex mutex;
  static std::atomic<Pool*> current{nullptr};
  static std::atomic<pid_t> owner{0};
  const pid_t process = getpid();
  if (owner.load(std::memory_order_acquire) != process) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (owner.load(std::memory_order_relaxed) != process) {
      current.store(new Pool, std::memory_order_relaxed);
      owner.store(process, std::memory_order_release);
    }
  }
  return *current.load(std::memory_order_relaxed);
}

}  // namespace

void run_on_threads(BlockJob& job, int threads) {
  pool().run(job, threads);
}

}  // namespace fastconv::emulator
