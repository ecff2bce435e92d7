#include "emulator/monitor.h"

#if FASTCONV_EMULATOR_CHECKED

#include <pthread.h>

#include <algorithm>

#include "emulator/async_copy.h"
#include "emulator/device.h"

namespace fastconv::emulator {
namespace {

constexpr uint16_t kDynamic = 0;  // target number; static arrays follow
const char* const kDynamicName = "dynamic shared memory";

uintptr_t end_of_stack() {
  thread_local const uintptr_t end = [] {
    pthread_attr_t attributes;
    void* lowest = nullptr;
    size_t bytes = 0;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0) return ~uintptr_t{0};
    pthread_attr_getstack(&attributes, &lowest, &bytes);
    pthread_attr_destroy(&attributes);
    return reinterpret_cast<uintptr_t>(lowest) + bytes;
  }();
  return end;
}

std::string bytes_text(uint64_t bytes) {
  return std::to_string(bytes) + (bytes == 1 ? " byte" : " bytes");
}

std::string hexadecimal(uintptr_t address) {
  char text[32];
  std::snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(address));
  return text;
}

const char* verb_of(Access access) {
  return access == Access::load ? "reads" : access == Access::store ? "writes" : "updates";
}

const char* past_of(Access access) {
  return access == Access::load ? "read" : access == Access::store ? "wrote" : "updated atomically";
}

// Where an address lies beside a range that it is not, or not wholly, in.
std::string beside(uintptr_t address, uintptr_t begin, uintptr_t end) {
  if (address < begin) return bytes_text(begin - address) + " before the start of ";
  if (address < end) return "across the end of ";
  return address == end ? "just past the end of " : bytes_text(address - end) + " past the end of ";
}

}  // namespace

WatchedLaunch::WatchedLaunch(const LaunchRequest& request, const Settings& settings, const void* parameters)
    : request(request),
      settings(settings),
      parameters_begin(reinterpret_cast<uintptr_t>(parameters)),
      parameters_end(end_of_stack()),
      kernel_symbol(symbol_of(request.function)) {
  tensors.reserve(request.tensors.size());
  for (const MemoryRange& range : request.tensors) tensors.emplace_back(range, settings.check, settings.count);
}

LaunchRecord WatchedLaunch::record() const {
  LaunchRecord record;
  record.kernel = request.kernel;
  record.grid = request.grid;
  record.block = request.block;
  record.dynamic_shared_bytes = request.dynamic_shared_bytes;
  record.static_shared_bytes = static_shared_bytes(request.function);
  for (const auto& [key, total] : totals) {
    AccessRecord access;
    if (!key.shared) {
      access.target = tensors[key.target].name;
    } else {
      access.target = key.target == kDynamic ? kDynamicName : shared_arrays()[key.target - 1u].name;
    }
    access.shared = key.shared;
    access.kind = key.kind;
    access.width = key.width;
    access.site = reinterpret_cast<const void*>(module_base() + key.site);
    access.accesses = total.accesses;
    access.requests = total.requests;
    access.sectors = total.sectors;
    access.wavefronts = total.wavefronts;
    access.ideal_wavefronts = total.ideal_wavefronts;
    record.accesses.push_back(access);
  }
  for (const TensorShadow& tensor : tensors) {
    using Touch = TensorShadow::Touch;
    record.tensors.push_back({tensor.name, tensor.end - tensor.begin, tensor.touched_bytes(Touch::loaded),
                              tensor.touched_bytes(Touch::stored), tensor.touched_sectors(Touch::loaded),
                              tensor.touched_sectors(Touch::stored), tensor.touched_sectors(Touch::streamed)});
  }
  record.operations = operations;
  return record;
}

Monitor::Monitor() : segment_(thread_segment()), arrays_(shared_arrays()) {
  shared_ = std::make_unique<SharedShadow>(kMostSharedBytes + segment_.bytes);
}

void Monitor::begin_launch(WatchedLaunch& launch) {
  launch_ = &launch;
  check_ = launch.settings.check;
  count_ = launch.settings.count;
  last_tensor_ = 0;
  uses_.assign(arrays_.size(), {});
  touched_bytes_ = static_shared_bytes(launch.request.function);
  for (size_t i = 0; i < arrays_.size(); ++i) uses_[i].own = belongs_to(arrays_[i], launch.kernel_symbol);
  foreign_.clear();
  own_sites_.clear();
}

void Monitor::end_launch() {
  const std::lock_guard<std::mutex> lock(launch_->mutex);
  counter_.drain(launch_->totals, launch_->operations);
  launch_ = nullptr;
}

void Monitor::begin_block(BlockScheduler& scheduler, uint64_t block) {
  scheduler_ = &scheduler;
  block_ = block;
  region_ = reinterpret_cast<uintptr_t>(&scheduler) & ~(kRegionAlign - 1);
  dynamic_ = reinterpret_cast<uintptr_t>(reinterpret_cast<const BlockView*>(region_)->dynamic_shared);
  trusts_other_blocks_ = false;
  forget_async_copies();
  if (!clock_.begin_block(scheduler.launch().threads)) shared_->forget();
  shared_->begin_epoch();
}

void Monitor::end_block() {
  counter_.block_met();
}

uint32_t Monitor::site_of(const Place& place) const {
  return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(place.site) - module_base());
}

void Monitor::access(uintptr_t address, uint32_t bytes, Access kind, const Place& place) {
  const uintptr_t own_stack = reinterpret_cast<uintptr_t>(place.frame) & ~(kStackBytes - 1);
  if (address - own_stack < kStackBytes) return;
  if ((bytes & (bytes - 1)) == 0 && (address & (bytes - 1)) != 0) {
    if (readable(address, bytes) && kind == Access::load) return;
    scheduler_->fail(std::string("misaligned: ") + verb_of(kind) + " " + bytes_text(bytes) + " at address " +
                         hexadecimal(address) + ", which is not a multiple of " + std::to_string(bytes),
                     place);
  }
  SharedPlace shared;
  if (find_shared(address, bytes, shared, place)) {
    access_shared(shared, address, bytes, kind, place);
  } else if (!access_tensor(address, bytes, kind, place) && !(kind == Access::load && readable(address, bytes))) {
    out_of_bounds(address, bytes, kind, place);
  }
}

bool Monitor::readable(uintptr_t address, uint32_t bytes) const {
  if (address >= region_ && address + bytes <= region_ + sizeof(BlockView)) return true;
  if (address >= launch_->parameters_begin && address + bytes <= launch_->parameters_end) return true;
  for (const ModuleRange& range : module_ranges()) {
    if (address >= range.begin && address + bytes <= range.end) return true;
  }
  return false;
}

bool Monitor::find_shared(uintptr_t address, uint32_t bytes, SharedPlace& place, const Place& from) {
  if (address - dynamic_ < kMostSharedBytes) {
    const size_t offset = address - dynamic_;
    const size_t size = launch_->request.dynamic_shared_bytes;
    if (offset + bytes > size) {
      scheduler_->fail("out of bounds: accesses " + bytes_text(bytes) + " " + beside(offset, 0, size) + kDynamicName +
                           " (" + bytes_text(size) + ")",
                       from);
    }
    place = {offset, kDynamic, true};
    return true;
  }
  if (address - segment_.begin >= segment_.bytes) return false;
  const size_t offset = address - segment_.begin;
  const auto after = std::upper_bound(arrays_.begin(), arrays_.end(), offset,
                                      [](size_t value, const SharedArray& array) { return value < array.offset; });
  if (arrays_.empty()) {  // stripped: the segment is one array
    place = {kMostSharedBytes + offset, kDynamic, true};
    return true;
  }
  if (after == arrays_.begin()) return false;
  const SharedArray& array = *(after - 1);
  if (offset + bytes > array.offset + array.bytes) {
    scheduler_->fail("out of bounds: accesses " + bytes_text(bytes) + " " +
                         beside(offset, array.offset, array.offset + array.bytes) + "shared array " + array.name +
                         " (" + bytes_text(array.bytes) + ")",
                     from);
  }
  const uint16_t index = static_cast<uint16_t>(after - arrays_.begin() - 1);
  notice_array(index, address, from);
  place = {kMostSharedBytes + offset, static_cast<uint16_t>(index + 1), true};
  return true;
}

// An index that runs over the end of a kernel's array may hit the array of another function. An instruction that
// touches both, where one lies right behind the other, is out of bounds.
void Monitor::notice_array(uint16_t index, uintptr_t address, const Place& place) {
  constexpr size_t kGap = 256;
  ArrayUse& use = uses_[index];
  const uint32_t site = site_of(place);
  const bool knows_owner = !launch_->kernel_symbol.empty();
  if (!use.touched) {
    use.touched = true;
    if (!use.own) touched_bytes_ += arrays_[index].bytes;
    const size_t total = touched_bytes_ + launch_->request.dynamic_shared_bytes;
    if (total > current_device().block_shared_bytes) {
      scheduler_->fail("needs " + bytes_text(total) + " of shared memory, a block of " + current_device().name +
                           " has at most " + std::to_string(current_device().block_shared_bytes),
                       place);
    }
  }
  if (use.own && foreign_.empty()) {
    own_sites_.emplace(site, index);
    return;
  }
  if (!knows_owner) return;
  const auto near = [&](uint16_t own, uint16_t foreign) {
    const SharedArray &a = arrays_[std::min(own, foreign)], &b = arrays_[std::max(own, foreign)];
    return b.offset <= a.offset + a.bytes + kGap;
  };
  uint16_t own = index, foreign = index;
  if (use.own) {
    own_sites_.emplace(site, index);
    const auto found = foreign_.find(site);
    if (found == foreign_.end() || !near(index, found->second.array)) return;
    foreign = found->second.array;
  } else {
    foreign_.emplace(site, ForeignAccess{index, false});
    const auto found = own_sites_.find(site);
    if (found == own_sites_.end() || !near(found->second, index)) return;
    own = found->second;
  }
  const SharedArray& array = arrays_[own];
  if (use.own) {
    scheduler_->fail("out of bounds: here inside shared array " + array.name + " (" + bytes_text(array.bytes) +
                         "), but another thread at the same instruction next to it, in " + arrays_[foreign].name +
                         " of another function",
                     place);
  }
  const uintptr_t begin = segment_.begin + array.offset;
  scheduler_->fail("out of bounds: accesses memory " + beside(address, begin, begin + array.bytes) + "shared array " +
                       array.name + " (" + bytes_text(array.bytes) + ")",
                   place);
}

std::string Monitor::shared_place(uintptr_t address) const {
  if (address - dynamic_ < kMostSharedBytes) {
    return "byte " + std::to_string(address - dynamic_) + " of " + kDynamicName;
  }
  const size_t offset = address - segment_.begin;
  for (const SharedArray& array : arrays_) {
    if (offset - array.offset < array.bytes) {
      return "byte " + std::to_string(offset - array.offset) + " of shared array " + array.name;
    }
  }
  return "static shared memory";
}

void Monitor::access_shared(const SharedPlace& shared, uintptr_t address, uint32_t bytes, Access kind,
                            const Place& place) {
  const uint32_t thread = scheduler_->current();
  const uint32_t site = site_of(place);
  if (count_) {
    counter_.count({site, shared.target, true, kind, static_cast<uint8_t>(bytes)}, thread, address);
  }
  if (!check_) return;
  using Finding = SharedShadow::Finding;
  const Finding finding = shared_->access(clock_, shared.offset, bytes, kind, thread, site);
  if (finding.kind == Finding::none) return;
  const std::string what = std::string(verb_of(kind)) + " " + shared_place(address + finding.byte);
  if (finding.kind == Finding::never_written) {
    scheduler_->fail("uninitialised shared memory: " + what + ", which nothing in this block has written yet", place);
  }
  const std::string other = scheduler_->thread_text(finding.other_thread);
  scheduler_->fail(
      "race: " + what + ", which thread " + other + " " + past_of(finding.other) + "; no barrier orders the two", place,
      {{"thread " + other + " " + past_of(finding.other) + " it",
        {reinterpret_cast<const void*>(module_base() + finding.other_site)}}});
}

bool Monitor::access_tensor(uintptr_t address, uint32_t bytes, Access kind, const Place& place) {
  const std::vector<TensorShadow>& tensors = launch_->tensors;
  const auto permits = [&](const TensorShadow& tensor) {
    return tensor.holds(address, bytes) && (kind == Access::load || tensor.writable);
  };
  size_t index = last_tensor_;
  if (index >= tensors.size() || !permits(tensors[index])) {
    for (index = 0; index < tensors.size() && !permits(tensors[index]); ++index) {
    }
    if (index == tensors.size()) return false;
    last_tensor_ = index;
  }
  const TensorShadow& tensor = tensors[index];
  const uint32_t thread = scheduler_->current();
  if (count_) {
    counter_.count({site_of(place), static_cast<uint16_t>(index), false, kind, static_cast<uint8_t>(bytes)}, thread,
                   address);
    if (kind != Access::store) tensor.touch(address, bytes, TensorShadow::Touch::loaded);
    if (kind != Access::load) tensor.touch(address, bytes, TensorShadow::Touch::stored);
  }
  if (!check_) return true;
  const TensorShadow::Conflict conflict =
      tensor.access(clock_, address, bytes, kind, block_, thread, trusts_other_blocks_);
  if (!conflict.found) return true;
  const dim3 grid = launch_->request.grid;
  std::string who = "thread " + scheduler_->thread_text(conflict.thread);
  if (conflict.many_blocks) {
    who = "another block";
  } else if (!conflict.same_block) {
    const std::string block = "block (" + std::to_string(conflict.block % grid.x) + ", " +
                              std::to_string(conflict.block / grid.x % grid.y) + ", " +
                              std::to_string(conflict.block / grid.x / grid.y) + ")";
    who = conflict.earlier == Access::load ? block : who + " of " + block;
  }
  scheduler_->fail(std::string("race: ") + verb_of(kind) + " byte " + std::to_string(address - tensor.begin) +
                       " of tensor " + tensor.name + ", which " + who + " " + past_of(conflict.earlier) +
                       " in the same launch" + (conflict.same_block ? "; no barrier orders the two" : ""),
                   place);
}

void Monitor::stream(uintptr_t address, uint32_t bytes) {
  if (!count_) return;
  for (const TensorShadow& tensor : launch_->tensors) {
    if (tensor.holds(address, bytes)) return tensor.touch(address, bytes, TensorShadow::Touch::streamed);
  }
}

void Monitor::out_of_bounds(uintptr_t address, uint32_t bytes, Access kind, const Place& place) const {
  const std::string access = std::string(verb_of(kind)) + " " + bytes_text(bytes);
  const TensorShadow* nearest = nullptr;
  uintptr_t distance = uintptr_t{1} << 26;  // further away it has nothing to do with a tensor
  for (const TensorShadow& tensor : launch_->tensors) {
    if (tensor.holds(address, bytes)) {
      scheduler_->fail("writes to a tensor that the kernel may only read: " + access + " at byte " +
                           std::to_string(address - tensor.begin) + " of tensor " + tensor.name,
                       place);
    }
    const uintptr_t apart = address < tensor.begin ? tensor.begin - address
                            : address < tensor.end ? 0
                                                   : address - tensor.end;
    if (apart < distance) {
      distance = apart;
      nearest = &tensor;
    }
  }
  std::string where = "at address " + hexadecimal(address) + ", which lies in no tensor";
  if (address - region_ < kRegionAlign) {
    where = "of another thread's local memory";
  } else if (nearest != nullptr) {
    where = beside(address, nearest->begin, nearest->end) + "tensor " + nearest->name + " (" +
            bytes_text(nearest->end - nearest->begin) + ")";
  }
  scheduler_->fail("out of bounds: " + access + " " + where, place);
}

void Monitor::count_operation(const std::string& name, uint64_t count) {
  if (count_) counter_.count_operation(name, count);
}

void Monitor::poison(const void* shared, size_t bytes) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(shared);
  if (address - dynamic_ < kMostSharedBytes) {
    shared_->poison(address - dynamic_, bytes);
  } else if (address - segment_.begin < segment_.bytes) {
    shared_->poison(kMostSharedBytes + address - segment_.begin, bytes);
  }
}

void Monitor::lanes_met(uint32_t warp, uint32_t lanes, bool whole_warp, const char* operation) {
  clock_.lanes_met(warp, lanes);
  if (!count_) return;
  counter_.count_operation(operation, 1);
  if (whole_warp) counter_.warp_met(warp);
}

void Monitor::block_met() {
  clock_.block_met();
  shared_->begin_epoch();
  if (!count_) return;
  counter_.count_operation("barrier", 1);
  counter_.block_met();
}

void Monitor::barrier_released() {
  clock_.tick();
  count_operation("barrier", 1);
}

}  // namespace fastconv::emulator

#endif
