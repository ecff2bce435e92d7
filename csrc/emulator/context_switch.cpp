#include "emulator/context_switch.h"

#include <cstdint>

#if defined(__x86_64__)

// System V: rbx, rbp, r12 to r15 belong to the caller. The floating-point control words are never changed by a kernel.
asm(R"(
.text
.p2align 4
.hidden fastconv_emulator_switch_context
.globl fastconv_emulator_switch_context
.type fastconv_emulator_switch_context, @function
fastconv_emulator_switch_context:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size fastconv_emulator_switch_context, .-fastconv_emulator_switch_context
)");

namespace fastconv::emulator {

void* new_context(unsigned char*, unsigned char* top, void (*entry)()) {
  // At a function's first instruction rsp + 8 is a multiple of 16, and the word at rsp is where it would return to.
  void** words = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(top) & ~uintptr_t{15});
  *--words = nullptr;
  *--words = reinterpret_cast<void*>(entry);
  for (int saved = 0; saved < 6; ++saved) *--words = nullptr;
  return words;
}

}  // namespace fastconv::emulator

#elif defined(__aarch64__)

// AAPCS64: x19 to x30 and the low halves of v8 to v15 belong to the caller.
asm(R"(
.text
.p2align 4
.hidden fastconv_emulator_switch_context
.globl fastconv_emulator_switch_context
.type fastconv_emulator_switch_context, %function
fastconv_emulator_switch_context:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size fastconv_emulator_switch_context, .-fastconv_emulator_switch_context
)");

namespace fastconv::emulator {

void* new_context(unsigned char*, unsigned char* top, void (*entry)()) {
  uint64_t* words = reinterpret_cast<uint64_t*>(reinterpret_cast<uintptr_t>(top) & ~uintptr_t{15}) - 20;
  for (int i = 0; i < 20; ++i) words[i] = 0;
  words[11] = reinterpret_cast<uint64_t>(entry);  // x30, where `ret` goes
  return words;
}

}  // namespace fastconv::emulator

#else

#include <ucontext.h>

// A context is a ucontext_t on the stack that it describes.
extern "C" void fastconv_emulator_switch_context(void** from, void* to) {
  ucontext_t here;
  *from = &here;
  swapcontext(&here, static_cast<ucontext_t*>(to));
}

namespace fastconv::emulator {

void* new_context(unsigned char* bottom, unsigned char* top, void (*entry)()) {
  uintptr_t place = reinterpret_cast<uintptr_t>(top) - sizeof(ucontext_t);
  ucontext_t* context = reinterpret_cast<ucontext_t*>(place & ~uintptr_t{63});
  getcontext(context);
  context->uc_stack.ss_sp = bottom;
  context->uc_stack.ss_size = static_cast<size_t>(reinterpret_cast<unsigned char*>(context) - bottom);
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
  return context;
}

}  // namespace fastconv::emulator

#endif
