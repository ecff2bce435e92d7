#include "emulator/access_counter.h"

#include <algorithm>

#include "emulator/counters.h"

namespace fastconv::emulator {
namespace {

constexpr uintptr_t kBankBytes = 4;
constexpr int kBanks = 32;

// Lanes that go through the banks together: all for up to 4 bytes a lane, half a warp for 8, a quarter for 16.
int lanes_of_phase(int width) {
  return width <= 4 ? 32 : width == 8 ? 16 : 8;
}

size_t distinct(uintptr_t* begin, uintptr_t* end) {
  std::sort(begin, end);
  return static_cast<size_t>(std::unique(begin, end) - begin);
}

}  // namespace

AccessTotals& AccessTotals::operator+=(const AccessTotals& other) {
  accesses += other.accesses;
  requests += other.requests;
  sectors += other.sectors;
  wavefronts += other.wavefronts;
  ideal_wavefronts += other.ideal_wavefronts;
  return *this;
}

uint32_t AccessCounter::index_of(const AccessKey& key) {
  const uint64_t packed = key.packed();
  if (packed == last_key_) return last_index_;
  const auto [place, is_new] = index_.emplace(packed, static_cast<uint32_t>(keys_.size()));
  if (is_new) {
    keys_.push_back(key);
    totals_.emplace_back();
  }
  last_key_ = packed;
  last_index_ = place->second;
  return last_index_;
}

void AccessCounter::count(const AccessKey& key, uint32_t thread, uintptr_t address) {
  const uint32_t index = index_of(key), lane = thread % kWarpSize;
  Warp& warp = warps_[thread / kWarpSize];
  if (warp.open.size() <= index) warp.open.resize(index + 1);
  OpenRequests& open = warp.open[index];
  if (open.requests.empty()) warp.in_use.push_back(index);
  const uint32_t execution = open.done[lane]++;
  if (execution >= open.requests.size()) open.requests.resize(execution + 1);
  Request& request = open.requests[execution];
  request.lanes |= uint32_t{1} << lane;
  request.address[lane] = address;
}

void AccessCounter::tally(const AccessKey& key, const Request& request, AccessTotals& totals) {
  totals.requests += 1;
  totals.accesses += static_cast<uint64_t>(__builtin_popcount(request.lanes));
  const uintptr_t width = key.width;
  if (!key.shared) {
    uintptr_t sectors[2 * kWarpSize];
    uintptr_t* end = sectors;
    for (uint32_t left = request.lanes; left != 0; left &= left - 1) {
      const uintptr_t address = request.address[static_cast<size_t>(__builtin_ctz(left))];
      *end++ = address / kSectorBytes;
      if ((address + width - 1) / kSectorBytes != address / kSectorBytes) *end++ = address / kSectorBytes + 1;
    }
    totals.sectors += distinct(sectors, end);
    return;
  }
  const int phase_lanes = lanes_of_phase(key.width);
  for (int first = 0; first < kWarpSize; first += phase_lanes) {
    uintptr_t words[4 * kWarpSize];
    uintptr_t* end = words;
    for (int lane = first; lane < first + phase_lanes; ++lane) {
      if ((request.lanes >> lane & 1) == 0) continue;
      const uintptr_t address = request.address[static_cast<size_t>(lane)];
      for (uintptr_t word = address / kBankBytes; word <= (address + width - 1) / kBankBytes; ++word) *end++ = word;
    }
    if (end == words) continue;
    const size_t count = distinct(words, end);
    int in_bank[kBanks] = {};
    int passes = 0;
    for (size_t i = 0; i < count; ++i) passes = std::max(passes, ++in_bank[words[i] % kBanks]);
    totals.wavefronts += static_cast<uint64_t>(passes);
    totals.ideal_wavefronts += 1;
  }
}

void AccessCounter::warp_met(uint32_t index) {
  Warp& warp = warps_[index];
  for (const uint32_t instruction : warp.in_use) {
    OpenRequests& open = warp.open[instruction];
    for (const Request& request : open.requests) tally(keys_[instruction], request, totals_[instruction]);
    open.requests.clear();
    open.done.fill(0);
  }
  warp.in_use.clear();
}

void AccessCounter::block_met() {
  for (uint32_t warp = 0; warp < kMaxWarps; ++warp) warp_met(warp);
}

void AccessCounter::drain(std::map<AccessKey, AccessTotals>& totals, std::map<std::string, uint64_t>& operations) {
  block_met();
  for (size_t i = 0; i < keys_.size(); ++i) totals[keys_[i]] += totals_[i];
  for (const auto& [name, count] : operations_) operations[name] += count;
  index_.clear();
  keys_.clear();
  totals_.clear();
  last_key_ = ~uint64_t{0};
  for (Warp& warp : warps_) warp.open.clear();
  operations_.clear();
}

}  // namespace fastconv::emulator
