#include "emulator/fault.h"

#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <mutex>

namespace fastconv::emulator {
namespace {

constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE};
struct sigaction previous[sizeof(kSignals) / sizeof(kSignals[0])];

// The regions of all workers. The handler may run in any thread at any time, so it only reads this table; a region that
// finds no room there has no reports.
constexpr int kMostRegions = 4096;
std::atomic<uintptr_t> regions[kMostRegions];

struct Registers {
  uintptr_t instruction, stack, frame;
};

Registers registers_of(const void* context) {
#if defined(__x86_64__)
  const auto& registers = static_cast<const ucontext_t*>(context)->uc_mcontext.gregs;
  return {static_cast<uintptr_t>(registers[REG_RIP]), static_cast<uintptr_t>(registers[REG_RSP]),
          static_cast<uintptr_t>(registers[REG_RBP])};
#elif defined(__aarch64__)
  const auto& registers = static_cast<const ucontext_t*>(context)->uc_mcontext;
  return {registers.pc, registers.sp, registers.regs[29]};
#else
  (void)context;
  return {0, 0, 0};
#endif
}

RegionHeader* region_of(uintptr_t stack) {
  const uintptr_t begin = stack & ~(kRegionAlign - 1);
  if (begin == 0) return nullptr;
  for (const std::atomic<uintptr_t>& region : regions) {
    if (region.load(std::memory_order_relaxed) == begin) return reinterpret_cast<RegionHeader*>(begin);
  }
  return nullptr;
}

std::string text_of(int signal, uintptr_t address, uintptr_t stack) {
  const uintptr_t slot = stack & ~(kStackBytes - 1);
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  if (signal == SIGFPE) return "integer division by zero";
  // A frame larger than a page may fault below its own guard page.
  if (address + page >= slot && address < slot + 2 * page) {
    return "stack overflow: the thread's local variables need more than the emulator's " +
           std::to_string(kStackBytes / 1024) + " KiB";
  }
  char text[80];
  std::snprintf(text, sizeof(text), "illegal memory access at address 0x%llx",
                static_cast<unsigned long long>(address));
  return text;
}

[[maybe_unused]] void handle(int signal, siginfo_t* info, void* context) {
  const Registers registers = registers_of(context);
  RegionHeader* region = region_of(registers.stack);
  if (region != nullptr && region->scheduler.running()) {
    // The handler is left by switching to the host's stack, and the thread that faulted is dropped.
    Failure failure;
    failure.what = text_of(signal, reinterpret_cast<uintptr_t>(info->si_addr), registers.stack);
    failure.thread = region->scheduler.current();
    const uintptr_t frame = registers.frame;
    failure.chain = {reinterpret_cast<const void*>(registers.instruction + 1)};
    if ((frame & ~(kStackBytes - 1)) == (registers.stack & ~(kStackBytes - 1)) && frame % sizeof(uintptr_t) == 0) {
      const void* site = reinterpret_cast<const void* const*>(frame)[1];
      for (const void* caller : call_chain({site, reinterpret_cast<const void*>(frame)}))
        failure.chain.push_back(caller);
    }
    region->scheduler.fail(std::move(failure));
  }
  for (size_t i = 0; i < sizeof(kSignals) / sizeof(kSignals[0]); ++i) {
    if (kSignals[i] != signal) continue;
    const struct sigaction& before = previous[i];
    if ((before.sa_flags & SA_SIGINFO) != 0) {
      before.sa_sigaction(signal, info, context);
    } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
      before.sa_handler(signal);
    } else {
      sigaction(signal, &before, nullptr);  // the instruction faults again, and then as if we were not here
    }
  }
}

}  // namespace

void report_faults() {
#if defined(__x86_64__) || defined(__aarch64__)
  static std::once_flag once;
  std::call_once(once, [] {
    for (size_t i = 0; i < sizeof(kSignals) / sizeof(kSignals[0]); ++i) {
      struct sigaction action = {};
      action.sa_sigaction = handle;
      // On a stack of its own, as the thread's may have overflowed. Not blocked meanwhile, as the handler is not
      // returned from.
      action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
      sigemptyset(&action.sa_mask);
      sigaction(kSignals[i], &action, &previous[i]);
    }
  });
#endif
}

FaultStack::FaultStack(const Region& region) : entry_(-1) {
  stack_t current = {};
  if (sigaltstack(nullptr, &current) == 0 && (current.ss_flags & SS_DISABLE) != 0) {
    memory_.resize(64 * 1024);
    stack_t own = {};
    own.ss_sp = memory_.data();
    own.ss_size = memory_.size();
    sigaltstack(&own, nullptr);
  }
  const uintptr_t begin = region.address();
  for (int i = 0; i < kMostRegions && entry_ < 0; ++i) {
    uintptr_t empty = 0;
    if (regions[i].compare_exchange_strong(empty, begin)) entry_ = i;
  }
}

FaultStack::~FaultStack() {
  if (entry_ >= 0) regions[entry_].store(0);
  if (memory_.empty()) return;
  stack_t current = {};
  if (sigaltstack(nullptr, &current) == 0 && current.ss_sp == memory_.data()) {
    stack_t none = {};
    none.ss_flags = SS_DISABLE;
    sigaltstack(&none, nullptr);
  }
}

}  // namespace fastconv::emulator
