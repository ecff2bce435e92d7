// ldmatrix: a warp loads 8x8 matrices of 16-bit elements from shared memory straight into the layout of mma fragments.
//
// Row r (16 bytes) of matrix j lies where lane 8j + r says. Lane l receives in register j of matrix j row l / 4,
// columns 2 (l % 4) and the next; transposed: rows 2 (l % 4) and the next, column l / 4. Eight rows are one phase of
// shared memory. A matrix of 32-bit elements is moved as 8 rows of 4: lane l receives row l / 4, column l % 4 (never
// transposed).
#pragma once

#include <cstdint>

#include "ptx/cp_async.h"

#if FASTCONV_EMULATOR
#include "emulator/tensor_core.h"
#endif

namespace fastconv::ptx {

// count: 1, 2 or 4 matrices. row: this lane's row address, 16-byte aligned; lanes from 8 * count on may pass any.
template <int count, bool transposed = false>
__device__ __forceinline__ void load_matrices(uint32_t (&registers)[count], const void* row) {
  static_assert(count == 1 || count == 2 || count == 4, "ldmatrix loads 1, 2 or 4 matrices");
#if FASTCONV_EMULATOR
  emulator::MatrixLane lane;
  if (emulator::lane_of_warp() < 8 * count) {
    const Vector<uint32_t, 4> bytes = load_vector<4>(static_cast<const uint32_t*>(row));
    for (int i = 0; i < 4; ++i) lane.row[i] = bytes[i];
  }
  emulator::load_matrices(lane, count, transposed);
  for (int j = 0; j < count; ++j) registers[j] = lane.registers[j];
#else
  const uint32_t address = shared_address(row);
  if constexpr (count == 1) {
    if constexpr (transposed) {
      asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(registers[0]) : "r"(address));
    } else {
      asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(registers[0]) : "r"(address));
    }
  } else if constexpr (count == 2) {
    if constexpr (transposed) {
      asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                   : "=r"(registers[0]), "=r"(registers[1])
                   : "r"(address));
    } else {
      asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                   : "=r"(registers[0]), "=r"(registers[1])
                   : "r"(address));
    }
  } else {
    if constexpr (transposed) {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                   : "r"(address));
    } else {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                   : "r"(address));
    }
  }
#endif
}

}  // namespace fastconv::ptx
