#include "emulator/settings.h"

#include <mutex>
#include <stdexcept>

namespace fastconv::emulator {
namespace {

std::mutex mutex;
Settings current;

}  // namespace

Settings settings() {
  const std::lock_guard<std::mutex> lock(mutex);
  return current;
}

void set_settings(const Settings& settings) {
  if ((settings.check || settings.count) && !kCheckedBuild) {
    throw std::invalid_argument("this build of the emulator cannot check or count; fastconv._emulator_checked can");
  }
  const std::lock_guard<std::mutex> lock(mutex);
  current = settings;
}

}  // namespace fastconv::emulator
