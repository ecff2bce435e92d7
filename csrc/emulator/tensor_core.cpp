#include "emulator/tensor_core.h"

#include <cstring>

#include "common/numeric.h"
#include "emulator/observe.h"

namespace fastconv::emulator {
namespace {

constexpr int kMaxRows = 8;      // m16 tiles of one multiply_add
constexpr int kMaxColumns = 16;  // n8 tiles
constexpr int kMaxDepth = 16;    // k of one mma

typedef float Float8 __attribute__((vector_size(32), may_alias, aligned(4)));

void require_whole_warp(const char* name, uint32_t arrived) {
  if (arrived != 0xffffffffu) fail(std::string(name) + " needs all 32 lanes of the warp");
}

void complete_load(void* const* deposits, uint32_t arrived) {
  require_whole_warp("ldmatrix", arrived);
  const MatrixLane& first = *static_cast<const MatrixLane*>(deposits[0]);
  for (int lane = 0; lane < kWarpSize; ++lane) {
    MatrixLane& to = *static_cast<MatrixLane*>(deposits[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int j = 0; j < first.count; ++j) {
      if (!first.transposed) {
        to.registers[j] = static_cast<const MatrixLane*>(deposits[8 * j + g])->row[t];
        continue;
      }
      uint32_t pair[2];
      for (int i = 0; i < 2; ++i) {
        const uint32_t word = static_cast<const MatrixLane*>(deposits[8 * j + 2 * t + i])->row[g / 2];
        pair[i] = g % 2 ? word >> 16 : word & 0xffffu;
      }
      to.registers[j] = pair[0] | pair[1] << 16;
    }
  }
}

constexpr WarpOperation kLoadMatrices{"ldmatrix", complete_load};

float to_float(MmaKind kind, uint16_t bits) {
  return kind == MmaKind::float16 ? Numeric<Half>::load(Half{bits}) : Numeric<BFloat16>::load(BFloat16{bits});
}

float tf32_to_float(uint32_t bits) {
  return float_from_bits(bits & 0xffffe000u);
}

// The operands of a warp as matrices.
struct Operands {
  float a[kMaxRows * 16][kMaxDepth];
  float b[kMaxDepth][kMaxColumns * 8];
  float d[kMaxRows * 16][kMaxColumns * 8];
};

void gather_inputs(Operands& operands, void* const* deposits, const MmaLane& shape) {
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const MmaLane& from = *static_cast<const MmaLane*>(deposits[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int m = 0; m < shape.rows; ++m) {
      for (int j = 0; j < 4; ++j) {
        const uint32_t bits = from.a[4 * m + j];
        float* row = operands.a[16 * m + g + 8 * (j % 2)];
        if (shape.kind == MmaKind::tf32) {
          row[t + 4 * (j / 2)] = tf32_to_float(bits);
        } else {
          row[2 * t + 8 * (j / 2)] = to_float(shape.kind, bits & 0xffffu);
          row[2 * t + 8 * (j / 2) + 1] = to_float(shape.kind, bits >> 16);
        }
      }
    }
    for (int n = 0; n < shape.columns; ++n) {
      for (int j = 0; j < 2; ++j) {
        const uint32_t bits = from.b[2 * n + j];
        const int column = 8 * n + g;
        if (shape.kind == MmaKind::tf32) {
          operands.b[t + 4 * j][column] = tf32_to_float(bits);
        } else {
          operands.b[2 * t + 8 * j][column] = to_float(shape.kind, bits & 0xffffu);
          operands.b[2 * t + 8 * j + 1][column] = to_float(shape.kind, bits >> 16);
        }
      }
    }
  }
}

// Calls visit(accumulator of the lane, its place in d) for every pair of neighbouring elements.
template <class Visit>
void visit_accumulators(Operands& operands, void* const* deposits, const MmaLane& shape, const Visit& visit) {
  for (int lane = 0; lane < kWarpSize; ++lane) {
    float* d = static_cast<const MmaLane*>(deposits[lane])->d;
    const int g = lane / 4, t = lane % 4;
    for (int m = 0; m < shape.rows; ++m) {
      for (int n = 0; n < shape.columns; ++n) {
        for (int half = 0; half < 2; ++half, d += 2) visit(d, &operands.d[16 * m + g + 8 * half][8 * n + 2 * t]);
      }
    }
  }
}

// Four rows by eight columns in registers. The products of one mma are added up before they meet the accumulator, as on
// the hardware, whose order beyond that is not specified.
template <int depth>
void multiply(Operands& operands, int rows, int columns) {
  for (int m = 0; m < rows; m += 4) {
    for (int n = 0; n < columns; n += 8) {
      Float8 sums[4] = {};
      for (int k = 0; k < depth; ++k) {
        const Float8 b = *reinterpret_cast<const Float8*>(&operands.b[k][n]);
        for (int i = 0; i < 4; ++i) sums[i] += operands.a[m + i][k] * b;
      }
      for (int i = 0; i < 4; ++i) *reinterpret_cast<Float8*>(&operands.d[m + i][n]) += sums[i];
    }
  }
}

void complete_multiply(void* const* deposits, uint32_t arrived) {
  require_whole_warp("mma", arrived);
  const MmaLane shape = *static_cast<const MmaLane*>(deposits[0]);
  if (shape.rows > kMaxRows || shape.columns > kMaxColumns) fail("mma: more tiles than the emulator has room for");
  count_operation(shape.kind == MmaKind::tf32 ? "mma.m16n8k8" : "mma.m16n8k16", uint64_t(shape.rows) * shape.columns);
  static thread_local Operands operands;
  gather_inputs(operands, deposits, shape);
  visit_accumulators(operands, deposits, shape, [](float* lane, float* place) { std::memcpy(place, lane, 8); });
  if (shape.kind == MmaKind::tf32) {
    multiply<8>(operands, 16 * shape.rows, 8 * shape.columns);
  } else {
    multiply<16>(operands, 16 * shape.rows, 8 * shape.columns);
  }
  visit_accumulators(operands, deposits, shape, [](float* lane, float* place) { std::memcpy(lane, place, 8); });
}

constexpr WarpOperation kMultiplyAdd{"mma", complete_multiply};

}  // namespace

void load_matrices(MatrixLane& lane, int count, bool transposed) {
  lane.count = count;
  lane.transposed = transposed;
  meet_lanes(0xffffffffu, kLoadMatrices, &lane);
}

void multiply_add(const MmaLane& lane) {
  meet_lanes(0xffffffffu, kMultiplyAdd, const_cast<MmaLane*>(&lane));
}

}  // namespace fastconv::emulator
