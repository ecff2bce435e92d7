// Loads that tell the cache that their bytes will not be asked for again.
#pragma once

#include <cstddef>

namespace fastconv::emulator {

#if FASTCONV_EMULATOR_CHECKED
// Of the current thread, beside the load itself.
void observe_streaming(const void* address, size_t bytes);
#else
inline void observe_streaming(const void*, size_t) {}
#endif

}  // namespace fastconv::emulator
