#include "emulator/shared_shadow.h"

#include <sys/mman.h>

#include <new>

namespace fastconv::emulator {

SharedShadow::SharedShadow(size_t bytes) : bytes_(bytes) {
  void* memory =
      mmap(nullptr, bytes * sizeof(Cell), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  cells_ = static_cast<Cell*>(memory);
}

SharedShadow::~SharedShadow() {
  munmap(cells_, bytes_ * sizeof(Cell));
}

void SharedShadow::forget() {
  madvise(cells_, bytes_ * sizeof(Cell), MADV_DONTNEED);
}

void SharedShadow::poison(size_t offset, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) cells_[offset + i].write_time = 0;
}

SharedShadow::WarpReaders* SharedShadow::list_of(Cell& cell) {
  if (cell.readers == 0) {
    cell.readers = static_cast<uint32_t>(readers_.size()) + 1;
    readers_.resize(readers_.size() + kMaxWarps);
    readers_[cell.readers - 1 + cell.reader / kWarpSize] = {uint32_t{1} << cell.reader % kWarpSize, cell.read_time};
  }
  return &readers_[cell.readers - 1];
}

// Whoever is ordered after the new read is ordered after the reads before it, which are therefore dropped.
void SharedShadow::add_reader(const RaceClock& clock, WarpReaders& warp, uint32_t first, uint32_t thread,
                              RaceClock::Time time) {
  for (uint32_t left = warp.lanes; left != 0; left &= left - 1) {
    const uint32_t lane = static_cast<uint32_t>(__builtin_ctz(left));
    if (clock.ordered(first + lane, warp.time, thread)) warp.lanes &= ~(uint32_t{1} << lane);
  }
  warp.lanes |= uint32_t{1} << (thread - first);
  warp.time = time;
}

SharedShadow::Finding SharedShadow::read(const RaceClock& clock, Cell& cell, uint32_t thread, uint32_t site) {
  if (cell.write_time < clock.block_start()) return {Finding::never_written, 0, 0, Access::load, 0};
  const uint32_t writer = cell.writer & (kAtomic - 1);
  if (!clock.ordered(writer, cell.write_time, thread)) {
    return {Finding::race, 0, writer, (cell.writer & kAtomic) != 0 ? Access::atomic : Access::store, cell.write_site};
  }
  if (cell.read_time < clock.epoch_start()) {
    cell.readers = 0;
    cell.reader = static_cast<uint16_t>(thread);
  } else if (cell.readers == 0 && clock.ordered(cell.reader, cell.read_time, thread)) {
    cell.reader = static_cast<uint16_t>(thread);
  } else {
    const uint32_t warp = thread / kWarpSize;
    add_reader(clock, list_of(cell)[warp], warp * kWarpSize, thread, clock.now());
  }
  cell.read_time = clock.now();
  cell.read_site = site;
  return {};
}

SharedShadow::Finding SharedShadow::write(const RaceClock& clock, Cell& cell, uint32_t thread, uint32_t site,
                                          bool atomic) {
  const bool written = cell.write_time >= clock.block_start();
  const bool both_atomic = atomic && (cell.writer & kAtomic) != 0;
  const uint32_t writer = cell.writer & (kAtomic - 1);
  if (written && !both_atomic && !clock.ordered(writer, cell.write_time, thread)) {
    return {Finding::race, 0, writer, (cell.writer & kAtomic) != 0 ? Access::atomic : Access::store, cell.write_site};
  }
  if (cell.read_time >= clock.epoch_start() && cell.readers == 0) {
    if (!clock.ordered(cell.reader, cell.read_time, thread)) {
      return {Finding::race, 0, cell.reader, Access::load, cell.read_site};
    }
  } else if (cell.read_time >= clock.epoch_start()) {
    for (uint32_t warp = 0; warp < kMaxWarps; ++warp) {
      const WarpReaders& readers = readers_[cell.readers - 1 + warp];
      for (uint32_t left = readers.lanes; left != 0; left &= left - 1) {
        const uint32_t reader = warp * kWarpSize + static_cast<uint32_t>(__builtin_ctz(left));
        if (!clock.ordered(reader, readers.time, thread)) {
          return {Finding::race, 0, reader, Access::load, cell.read_site};
        }
      }
    }
  }
  cell.write_time = clock.now();
  cell.write_site = site;
  cell.writer = static_cast<uint16_t>(thread | (atomic ? kAtomic : 0));
  cell.read_time = 0;
  return {};
}

SharedShadow::Finding SharedShadow::access(const RaceClock& clock, size_t offset, uint32_t bytes, Access kind,
                                           uint32_t thread, uint32_t site) {
  for (uint32_t byte = 0; byte < bytes; ++byte) {
    Cell& cell = cells_[offset + byte];
    Finding finding;
    if (kind == Access::atomic && cell.write_time < clock.block_start()) {
      finding.kind = Finding::never_written;
    } else {
      finding = kind == Access::load ? read(clock, cell, thread, site)
                                     : write(clock, cell, thread, site, kind == Access::atomic);
    }
    if (finding.kind != Finding::none) {
      finding.byte = byte;
      return finding;
    }
  }
  return {};
}

}  // namespace fastconv::emulator
