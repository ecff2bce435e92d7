// What is to be computed, without the data. The C++ twin of fastconv/problem.py; no CUDA, no torch.
#pragma once

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace fastconv {

enum class DataType { float64, float32, float16, bfloat16 };

inline int size_of(DataType type) {
  switch (type) {
    case DataType::float64:
      return 8;
    case DataType::float32:
      return 4;
    default:
      return 2;
  }
}

enum class Activation { identity, relu, leaky_relu, silu, gelu, sigmoid, hardswish, tanh };

// Sizes and strides in elements. For x: [N, C, H, W]; w: [K, C/G, R, S]; y: [N, K, P, Q].
struct Operand {
  std::array<int64_t, 4> sizes{};
  std::array<int64_t, 4> strides{};

  int64_t count() const { return sizes[0] * sizes[1] * sizes[2] * sizes[3]; }
  // Distance from the first element to the furthest; -1 where there is none.
  int64_t last_offset() const {
    if (count() == 0) return -1;
    int64_t offset = 0;
    for (int i = 0; i < 4; ++i) offset += (sizes[i] - 1) * strides[i];
    return offset;
  }
};

// The device a plan is made for; under emulation, the device that is played.
struct Target {
  int capability = 80;
  int multiprocessors = 108;
  int64_t l2_bytes = 0;  // of the second-level cache; 0: as devices of that capability mostly have
};

enum class ConvPass { fprop, dgrad, wgrad };

// What stands beyond the borders of x. PyTorch's words; "constant" is padding_value.
enum class PaddingMode { zeros, reflect, replicate, circular, constant };

const char* name_of(PaddingMode mode);

// x, w and y keep their roles in every pass: dgrad writes x from y and w, wgrad writes w from y and x.
struct ConvProblem {
  ConvPass pass = ConvPass::fprop;
  DataType dtype = DataType::float32;
  Operand x, w, y;
  std::array<int, 2> stride{1, 1};         // u, v
  std::array<int, 4> padding{0, 0, 0, 0};  // top, bottom, left, right
  std::array<int, 2> dilation{1, 1};
  int groups = 1;
  bool has_bias = false;  // fprop: [K], dgrad: [C]; wgrad: the bias gradient [K] is written too
  bool has_residual = false;
  Operand residual;  // sizes of y; fprop only
  Activation activation = Activation::identity;
  int index_bits = 32;
  bool allow_tf32 = false;
  bool deterministic = true;
  PaddingMode padding_mode = PaddingMode::zeros;
  double padding_value = 0;                           // of mode constant
  int64_t most_workspace_bytes = int64_t{256} << 20;  // tensor-core kernels keep to it, or reject the problem
  Target target;

  // Throws std::invalid_argument unless sizes, strides and index width fit together.
  void validate() const;
  // Whether a kernel that knows zeros only computes this pass. The gradient by x does not see a constant.
  bool is_zero_padded() const;
  // Multiply-adds of the dense definition, counted as two operations each, padding taps included.
  int64_t flops() const;
  // Bytes that must cross device memory: each element once, without those of an x that is read which no window reaches.
  int64_t compulsory_bytes() const;
};

enum class PoolPass { forward, backward, gather, indices };
enum class OffsetType { uint8, int32 };

// forward: x -> y, offsets. backward: y, offsets -> x. gather: x, offsets -> y. indices: offsets -> int64 [N, C, P, Q]
// with y's strides.
struct PoolProblem {
  PoolPass pass = PoolPass::forward;
  DataType dtype = DataType::float32;
  OffsetType offsets_type = OffsetType::uint8;
  Operand x, y, offsets;
  std::array<int, 2> kernel{2, 2};  // R, S
  std::array<int, 2> stride{2, 2};
  std::array<int, 2> padding{0, 0};
  std::array<int, 2> dilation{1, 1};
  int index_bits = 32;
  Target target;

  void validate() const;
  int64_t flops() const;
  int64_t compulsory_bytes() const;
};

// Max pooling of activation(convolution + bias): x, w, bias -> pool.y, pool.offsets. pool.x has the sizes of conv.y,
// which is not in memory.
struct ConvMaxPoolProblem {
  ConvProblem conv;  // fprop, without a residual
  PoolProblem pool;  // forward

  void validate() const;
  int64_t flops() const { return conv.flops(); }
  int64_t compulsory_bytes() const;
};

// The largest of activation(convolution + bias) in each image and filter: x, w, bias -> y [N, K], int64 indices p * Q +
// q [N, K], both dense.
struct ConvGlobalMaxProblem {
  ConvProblem conv;  // fprop, without a residual

  int64_t outputs() const { return conv.y.sizes[0] * conv.y.sizes[1]; }
  void validate() const;
  int64_t flops() const { return conv.flops(); }
  int64_t compulsory_bytes() const;
};

// Sum of x over N, H and W into [C].
struct ChannelSumProblem {
  DataType dtype = DataType::float32;
  Operand x;
  int index_bits = 32;
  Target target;

  void validate() const;
  int64_t flops() const;
  int64_t compulsory_bytes() const;
};

// dz of dy through an activation whose output or input was saved; the three have the same sizes.
struct ActivationBackwardProblem {
  DataType dtype = DataType::float32;
  Operand dy, saved, dz;
  Activation activation = Activation::relu;
  int index_bits = 32;
  Target target;

  void validate() const;
  int64_t flops() const;
  int64_t compulsory_bytes() const;
};

}  // namespace fastconv
