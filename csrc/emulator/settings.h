// How launches are watched. Process-wide, so that every thread that launches sees it.
#pragma once

#include <cstdint>

namespace fastconv::emulator {

struct Settings {
  bool check = false;     // bounds, races, initialisation, barriers; only in the checked build
  bool count = false;     // bytes, sectors, bank conflicts; only in the checked build
  bool shuffled = false;  // threads run in an order drawn from the seed
  uint64_t seed = 0;
};

Settings settings();
// std::invalid_argument where this build cannot check or count.
void set_settings(const Settings& settings);

#if FASTCONV_EMULATOR_CHECKED
constexpr bool kCheckedBuild = true;
#else
constexpr bool kCheckedBuild = false;
#endif

}  // namespace fastconv::emulator
