// Leaving one stack for another.
#pragma once

#include <cstddef>

namespace fastconv::emulator {

// Saves what the calling convention asks to preserve on the current stack, stores the stack pointer in *from and goes
// on where `to` was left. Returns when somebody switches back to *from.
extern "C" void fastconv_emulator_switch_context(void** from, void* to);

// What to switch to so that `entry`, which must not return, begins with `top` as the end of its stack.
void* new_context(unsigned char* bottom, unsigned char* top, void (*entry)());

}  // namespace fastconv::emulator
