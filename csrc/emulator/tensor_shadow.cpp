#include "emulator/tensor_shadow.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

namespace fastconv::emulator {
namespace {

// A record: block + 1 in 30 bits, thread in 10, whether atomic in 1, time since the block began in 23. 0: nobody wrote.
constexpr int kTimeBits = 23;
constexpr uint64_t kLastTime = (uint64_t{1} << kTimeBits) - 1;
constexpr uint64_t kBlocks = (uint64_t{1} << 30) - 1;
constexpr uint32_t kMany = ~uint32_t{0};

uint64_t record_of(uint64_t block, uint32_t thread, bool atomic, uint64_t time) {
  return ((block + 1) % kBlocks + 1) << 34 | uint64_t{thread} << 24 | uint64_t{atomic} << kTimeBits |
         std::min(time, kLastTime);
}

uint64_t block_of(uint64_t record) {
  return record >> 34;
}
uint32_t thread_of(uint64_t record) {
  return static_cast<uint32_t>(record >> 24) & 1023;
}
bool is_atomic(uint64_t record) {
  return (record >> kTimeBits & 1) != 0;
}

}  // namespace

LazyMemory::LazyMemory(size_t bytes) : bytes_(bytes), memory_(nullptr) {
  if (bytes == 0) return;
  memory_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory_ == MAP_FAILED) throw std::bad_alloc();
}

LazyMemory::~LazyMemory() {
  if (memory_ != nullptr) munmap(memory_, bytes_);
}

TensorShadow::TensorShadow(const MemoryRange& range, bool check, bool count)
    : name(range.name),
      begin(reinterpret_cast<uintptr_t>(range.begin)),
      end(begin + range.bytes),
      writable(range.writable),
      writers_(check && range.writable ? range.bytes * sizeof(uint64_t) : 0),
      readers_(check && range.writable ? range.bytes * sizeof(uint32_t) : 0),
      loaded_(count ? (range.bytes + 7) / 8 : 0),
      stored_(count && range.writable ? (range.bytes + 7) / 8 : 0),
      streamed_(count ? (range.bytes + 7) / 8 : 0) {}

TensorShadow::Conflict TensorShadow::access(const RaceClock& clock, uintptr_t address, uint32_t bytes, Access kind,
                                            uint64_t block, uint32_t thread, bool trusts_other_blocks) const {
  uint64_t* records = writers_.as<uint64_t>();
  if (records == nullptr) return {};
  const uint64_t own = record_of(block, thread, kind == Access::atomic, clock.now() - clock.block_start());
  const uint32_t own_block = static_cast<uint32_t>(block_of(own));
  for (uint32_t byte = 0; byte < bytes; ++byte) {
    uint32_t* reader = &readers_.as<uint32_t>()[address - begin + byte];
    const uint32_t earlier_reader = __atomic_load_n(reader, __ATOMIC_RELAXED);
    if (kind == Access::load && earlier_reader != own_block && earlier_reader != kMany) {
      __atomic_store_n(reader, earlier_reader == 0 ? own_block : kMany, __ATOMIC_RELAXED);
    }
    if (kind == Access::store && earlier_reader != 0 && earlier_reader != own_block && !trusts_other_blocks) {
      return {true, false, Access::load, earlier_reader == kMany, earlier_reader - 2u, 0};
    }
    uint64_t* record = &records[address - begin + byte];
    const uint64_t earlier = kind == Access::load ? __atomic_load_n(record, __ATOMIC_RELAXED)
                                                  : __atomic_exchange_n(record, own, __ATOMIC_RELAXED);
    if (earlier == 0 || (kind == Access::atomic && is_atomic(earlier))) continue;
    const bool same_block = block_of(earlier) == block_of(own);
    const uint64_t time = earlier & kLastTime;
    const bool ordered =
        same_block ? time == kLastTime ||
                         clock.ordered(thread_of(earlier), clock.block_start() + static_cast<uint32_t>(time), thread)
                   : kind == Access::load && trusts_other_blocks;
    if (!ordered) {
      return {true,
              same_block,
              is_atomic(earlier) ? Access::atomic : Access::store,
              false,
              block_of(earlier) - 2,
              thread_of(earlier)};
    }
  }
  return {};
}

void TensorShadow::touch(uintptr_t address, uint32_t bytes, Touch how) const {
  unsigned char* bits = touched(how);
  if (bits == nullptr) return;
  for (uint32_t byte = 0; byte < bytes; ++byte) {
    const uintptr_t place = address - begin + byte;
    const unsigned char bit = static_cast<unsigned char>(1u << place % 8);
    if ((__atomic_load_n(&bits[place / 8], __ATOMIC_RELAXED) & bit) == 0) {
      __atomic_fetch_or(&bits[place / 8], bit, __ATOMIC_RELAXED);
    }
  }
}

uint64_t TensorShadow::touched_bytes(Touch how) const {
  const unsigned char* bits = touched(how);
  if (bits == nullptr) return 0;
  uint64_t count = 0;
  for (size_t i = 0; i < (end - begin + 7) / 8; ++i) count += static_cast<uint64_t>(__builtin_popcount(bits[i]));
  return count;
}

std::vector<SectorRun> TensorShadow::touched_sectors(Touch how) const {
  std::vector<SectorRun> runs;
  const unsigned char* bits = touched(how);
  if (bits == nullptr) return runs;
  for (size_t i = 0; i < (end - begin + 7) / 8; ++i) {
    if (bits[i] == 0) continue;
    // Eight bytes lie in one sector, or in two that follow each other.
    const auto sector_of = [&](int bit) { return (begin + 8 * i + static_cast<uintptr_t>(bit)) / kSectorBytes; };
    const uint64_t first = sector_of(__builtin_ctz(bits[i])), last = sector_of(31 - __builtin_clz(bits[i]));
    if (runs.empty() || runs.back().end < first) runs.push_back({first, first});
    runs.back().end = last + 1;
  }
  return runs;
}

}  // namespace fastconv::emulator
