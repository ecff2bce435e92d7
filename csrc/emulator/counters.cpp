#include "emulator/counters.h"

#include <mutex>
#include <utility>

namespace fastconv::emulator {
namespace {

std::mutex mutex;
std::vector<LaunchRecord>& kept() {
  static auto& records = *new std::vector<LaunchRecord>;
  return records;
}

}  // namespace

std::vector<LaunchRecord> take_launch_records() {
  const std::lock_guard<std::mutex> lock(mutex);
  return std::exchange(kept(), {});
}

void keep_launch_record(LaunchRecord record) {
  const std::lock_guard<std::mutex> lock(mutex);
  kept().push_back(std::move(record));
}

}  // namespace fastconv::emulator
