// The rules that sizes, strides and types obey together. Kernels trust them, so nothing is launched that breaks one.
#include "common/problem.h"

#include <algorithm>
#include <initializer_list>
#include <limits>

#include "common/unpool_problem.h"
#include "common/windows.h"

namespace fastconv {
namespace {

constexpr int64_t kLargestInt32 = std::numeric_limits<int32_t>::max();
constexpr int64_t kLargestInt64 = std::numeric_limits<int64_t>::max();

[[noreturn]] void reject(const std::string& argument, const std::string& value, const std::string& accepted) {
  throw std::invalid_argument(argument + " is " + value + ", but must be " + accepted);
}

template <typename Values>
std::string list_of(const Values& values) {
  std::string text = "(";
  for (size_t i = 0; i < values.size(); ++i) text += (i ? ", " : "") + std::to_string(values[i]);
  return text + ")";
}

template <typename Values>
void require_at_least(const char* argument, const Values& values, int64_t least) {
  for (auto value : values) {
    if (value < least) reject(argument, list_of(values), std::to_string(least) + " or more in every entry");
  }
}

// a * b for counts, or the largest number where that does not fit.
int64_t saturating_product(int64_t a, int64_t b) {
  int64_t product;
  return __builtin_mul_overflow(a, b, &product) ? kLargestInt64 : product;
}

// Elements that kernels count or step over, whichever is more.
int64_t extent_of(const Operand& operand) {
  int64_t count = 1, furthest = 1;
  for (int i = 0; i < 4; ++i) count = saturating_product(count, operand.sizes[i]);
  if (count == 0) return 0;
  for (int i = 0; i < 4; ++i) {
    int64_t step = saturating_product(operand.sizes[i] - 1, operand.strides[i]);
    if (__builtin_add_overflow(furthest, step, &furthest)) furthest = kLargestInt64;
  }
  return std::max(count, furthest);
}

void check_operand(const char* name, const Operand& operand, int index_bits, int64_t element_size) {
  require_at_least((std::string(name) + " sizes").c_str(), operand.sizes, 0);
  require_at_least((std::string(name) + " strides").c_str(), operand.strides, 0);
  int64_t extent = extent_of(operand);
  if (extent > kLargestInt64 / element_size) {
    reject(name, "of sizes " + list_of(operand.sizes) + " and strides " + list_of(operand.strides), "addressable");
  }
  int64_t largest_size = *std::max_element(operand.sizes.begin(), operand.sizes.end());
  if (index_bits == 32 && std::max(extent, largest_size) > kLargestInt32) {
    reject("index_bits", "32",
           "64 where an operand spans 2**31 elements or more: " + std::string(name) + " of sizes " +
               list_of(operand.sizes) + " and strides " + list_of(operand.strides));
  }
}

// What is written must not share memory with itself. Enough is that each dimension steps over all the smaller ones.
void check_output(const char* name, const Operand& operand) {
  if (operand.count() == 0) return;
  std::array<int, 4> order{0, 1, 2, 3};
  std::sort(order.begin(), order.end(), [&](int a, int b) { return operand.strides[a] < operand.strides[b]; });
  int64_t covered = 1;
  for (int i : order) {
    if (operand.sizes[i] == 1) continue;
    if (operand.strides[i] < covered) {
      reject(std::string(name) + " strides", list_of(operand.strides),
             "free of overlap, because the pass writes this operand of sizes " + list_of(operand.sizes));
    }
    covered += (operand.sizes[i] - 1) * operand.strides[i];
  }
}

void check_common(int index_bits, const Target& target) {
  if (index_bits != 32 && index_bits != 64) reject("index_bits", std::to_string(index_bits), "32 or 64");
  if (target.capability < 10) reject("capability", std::to_string(target.capability), "a number like 80 or 90");
  if (target.multiprocessors < 1) reject("multiprocessors", std::to_string(target.multiprocessors), "1 or more");
  if (target.l2_bytes < 0) {
    reject("l2_bytes", std::to_string(target.l2_bytes),
           "the bytes of the second-level cache, or 0 for what devices of the capability mostly have");
  }
}

void check_same_size(const char* argument, int64_t value, const char* other, int64_t wanted) {
  if (value != wanted) reject(argument, std::to_string(value), std::to_string(wanted) + ", " + other);
}

// A filter of `taps` at `outputs` places must end inside the padded input. What is left over at the end is less than a
// step: the remainder of the division in PyTorch's formula, or the output_padding that a transposed convolution was
// given.
void check_convolved_size(const char* argument, int64_t outputs, const char* input_name, int64_t input, int64_t low,
                          int64_t high, int64_t taps, int64_t dilation, int64_t stride) {
  int64_t span = saturating_product(dilation, taps - 1);
  int64_t places = saturating_product(stride, std::max<int64_t>(outputs, 1) - 1);
  std::string geometry = "filter size " + std::to_string(taps) + ", stride " + std::to_string(stride) + ", dilation " +
                         std::to_string(dilation) + ", padding (" + std::to_string(low) + ", " + std::to_string(high) +
                         ") and " + input_name + " = " + std::to_string(input);
  if (span > kLargestInt32 || places > kLargestInt64 / 4 || input + low + high > kLargestInt64 / 4) {
    reject(argument, std::to_string(outputs), "of a geometry that can be counted: " + geometry);
  }
  int64_t left_over = input + low + high - (span + 1) - places;
  if (outputs < 1 || left_over < 0 || left_over >= std::max(stride, dilation)) {
    int64_t room = input + low + high - (span + 1);
    std::string accepted = room < 0 ? "the size of a filter that fits into the padded input"
                                    : std::to_string(room / stride + 1) + " (up to an output_padding less)";
    reject(argument, std::to_string(outputs), accepted + ", for " + geometry);
  }
}

// What PyTorch asks of the modes that take padding from x itself: reflected once, wrapped around once.
void check_padding_mode(const ConvProblem& problem) {
  if (problem.padding_value != 0 && problem.padding_mode != PaddingMode::constant) {
    reject("padding_value", std::to_string(problem.padding_value),
           std::string("0 where padding_mode is ") + name_of(problem.padding_mode));
  }
  for (int axis = 0; axis < 2; ++axis) {
    int64_t size = problem.x.sizes[2 + axis];
    int64_t largest = std::max(problem.padding[2 * axis], problem.padding[2 * axis + 1]);
    std::string input = axis == 0 ? "H = " : "W = ";
    input += std::to_string(size);
    if (problem.padding_mode == PaddingMode::reflect && largest > 0 && largest >= size) {
      reject("padding", list_of(problem.padding), "less than " + input + " where padding_mode is reflect");
    }
    if (problem.padding_mode == PaddingMode::circular && largest > size) {
      reject("padding", list_of(problem.padding), "at most " + input + " where padding_mode is circular");
    }
    if (problem.padding_mode == PaddingMode::replicate && largest > 0 && size == 0) {
      reject("padding", list_of(problem.padding), "0 where padding_mode is replicate and " + input);
    }
  }
}

// Kernels count positions in the padded input, and a block beyond the end of it.
void check_positions(int index_bits, int64_t input, int64_t low, int64_t high, int64_t span, const char* argument) {
  if (index_bits == 32 && input + low + high + span > kLargestInt32 - 65536) {
    reject("index_bits", "32", std::string("64 where the padded input is this large: ") + argument);
  }
}

}  // namespace

const char* name_of(PaddingMode mode) {
  switch (mode) {
    case PaddingMode::reflect:
      return "reflect";
    case PaddingMode::replicate:
      return "replicate";
    case PaddingMode::circular:
      return "circular";
    case PaddingMode::constant:
      return "constant";
    default:
      return "zeros";
  }
}

bool ConvProblem::is_zero_padded() const {
  bool is_padded = std::any_of(padding.begin(), padding.end(), [](int width) { return width > 0; });
  if (!is_padded || padding_mode == PaddingMode::zeros) return true;
  return padding_mode == PaddingMode::constant && (padding_value == 0 || pass == ConvPass::dgrad);
}

void ConvProblem::validate() const {
  check_common(index_bits, target);
  int element_size = size_of(dtype);
  check_operand("x", x, index_bits, element_size);
  check_operand("w", w, index_bits, element_size);
  check_operand("y", y, index_bits, element_size);
  require_at_least("stride", stride, 1);
  require_at_least("dilation", dilation, 1);
  require_at_least("padding", padding, 0);
  check_padding_mode(*this);
  if (groups < 1) reject("groups", std::to_string(groups), "1 or more");
  if (x.sizes[1] % groups != 0) {
    reject("groups", std::to_string(groups), "a divisor of x's channels, " + std::to_string(x.sizes[1]));
  }
  if (y.sizes[1] % groups != 0) {
    reject("groups", std::to_string(groups), "a divisor of y's channels, " + std::to_string(y.sizes[1]));
  }
  check_same_size("batch of y", y.sizes[0], "the batch of x", x.sizes[0]);
  check_same_size("w size 0 (output channels)", w.sizes[0], "the channels of y", y.sizes[1]);
  check_same_size("w size 1 (channels of a group)", w.sizes[1], "x's channels divided by groups", x.sizes[1] / groups);
  for (int i = 2; i < 4; ++i) {
    if (w.sizes[i] < 1) reject("w sizes", list_of(w.sizes), "1 or more in height and width");
  }
  check_convolved_size("y size 2 (P)", y.sizes[2], "H", x.sizes[2], padding[0], padding[1], w.sizes[2], dilation[0],
                       stride[0]);
  check_convolved_size("y size 3 (Q)", y.sizes[3], "W", x.sizes[3], padding[2], padding[3], w.sizes[3], dilation[1],
                       stride[1]);
  check_positions(index_bits, x.sizes[2], padding[0], padding[1], dilation[0] * (w.sizes[2] - 1), "height");
  check_positions(index_bits, x.sizes[3], padding[2], padding[3], dilation[1] * (w.sizes[3] - 1), "width");
  const char* written_names[] = {"y", "x", "w"};
  const Operand* written[] = {&y, &x, &w};
  check_output(written_names[static_cast<int>(pass)], *written[static_cast<int>(pass)]);
  if (has_residual) {
    if (pass != ConvPass::fprop) reject("residual", "given", "None in dgrad and wgrad");
    check_operand("residual", residual, index_bits, element_size);
    if (residual.sizes != y.sizes) {
      reject("residual sizes", list_of(residual.sizes), "those of y, " + list_of(y.sizes));
    }
  }
  if (pass == ConvPass::wgrad && activation != Activation::identity) {
    reject("activation", "not identity", "identity in wgrad");
  }
}

int64_t ConvProblem::flops() const {
  return 2 * y.count() * w.sizes[1] * w.sizes[2] * w.sizes[3];
}

namespace {

// Elements of x under a window.
int64_t read_elements(const ConvProblem& conv) {
  int64_t elements = conv.x.sizes[0] * conv.x.sizes[1];
  for (int i = 0; i < 2; ++i) {
    elements *= Windows{conv.x.sizes[2 + i], conv.y.sizes[2 + i], conv.w.sizes[2 + i],     conv.stride[i],
                        conv.dilation[i],    conv.padding[2 * i], conv.padding[2 * i + 1], conv.padding_mode}
                    .reached();
  }
  return elements;
}

int64_t read_elements(const PoolProblem& pool) {
  int64_t elements = pool.x.sizes[0] * pool.x.sizes[1];
  for (int i = 0; i < 2; ++i) {
    elements *= Windows{pool.x.sizes[2 + i], pool.y.sizes[2 + i], pool.kernel[i],
                        pool.stride[i],      pool.dilation[i],    pool.padding[i]}
                    .reached();
  }
  return elements;
}

}  // namespace

int64_t ConvProblem::compulsory_bytes() const {
  int64_t elements = pass == ConvPass::dgrad ? x.count() : read_elements(*this);
  elements += w.count() + y.count() + (has_residual ? residual.count() : 0);
  return elements * size_of(dtype);
}

void PoolProblem::validate() const {
  check_common(index_bits, target);
  bool has_x = pass != PoolPass::indices;
  int element_size = std::max(size_of(dtype), 8);  // indices are int64
  check_operand("x", x, has_x ? index_bits : 64, element_size);
  check_operand("y", y, index_bits, element_size);
  check_operand("offsets", offsets, index_bits, 4);
  require_at_least("kernel", kernel, 1);
  require_at_least("stride", stride, 1);
  require_at_least("dilation", dilation, 1);
  require_at_least("padding", padding, 0);
  if (offsets_type == OffsetType::uint8 && int64_t{kernel[0]} * kernel[1] > 256) {
    reject("offsets_dtype", "uint8", "int32 where the window has more than 256 elements: kernel " + list_of(kernel));
  }
  if (int64_t{kernel[0]} * kernel[1] > kLargestInt32) {
    reject("kernel", list_of(kernel), "a window of fewer than 2**31 elements");
  }
  check_same_size("batch of y", y.sizes[0], "the batch of x", x.sizes[0]);
  check_same_size("channels of y", y.sizes[1], "the channels of x", x.sizes[1]);
  if (offsets.sizes != y.sizes) reject("offsets sizes", list_of(offsets.sizes), "those of y, " + list_of(y.sizes));
  const char* names[] = {"y size 2 (P)", "y size 3 (Q)"};
  for (int i = 0; i < 2; ++i) {
    int64_t input = x.sizes[2 + i], outputs = y.sizes[2 + i];
    int64_t window = int64_t{dilation[i]} * (kernel[i] - 1) + 1;
    if (window > kLargestInt32) reject("dilation", list_of(dilation), "a window that spans fewer than 2**31 elements");
    if (padding[i] > window / 2) {
      reject("padding", list_of(padding), "at most half of the dilated kernel of " + std::to_string(window));
    }
    int64_t room = input + 2 * int64_t{padding[i]} - window;
    int64_t rounded_down = room < 0 ? 0 : room / stride[i] + 1;
    int64_t rounded_up = room <= -stride[i] ? 0 : (room + stride[i] - 1) / stride[i] + 1;
    // A window that ceil_mode adds must begin inside the input or its left padding.
    if (rounded_up > 0 && (rounded_up - 1) * stride[i] >= input + padding[i]) --rounded_up;
    if (outputs < 1 || (outputs != rounded_down && outputs != rounded_up)) {
      reject(names[i], std::to_string(outputs),
             std::to_string(rounded_down) + ", or " + std::to_string(rounded_up) + " with ceil_mode, for input size " +
                 std::to_string(input) + ", kernel " + std::to_string(kernel[i]) + ", stride " +
                 std::to_string(stride[i]) + ", padding " + std::to_string(padding[i]) + " and dilation " +
                 std::to_string(dilation[i]));
    }
    check_positions(index_bits, input, padding[i], padding[i], window + stride[i], i == 0 ? "height" : "width");
  }
  if (pass == PoolPass::backward) {
    check_output("x", x);
  } else {
    check_output("y", y);
  }
  if (pass == PoolPass::forward) check_output("offsets", offsets);
}

int64_t PoolProblem::flops() const {
  return y.count() * kernel[0] * kernel[1];
}

int64_t PoolProblem::compulsory_bytes() const {
  int64_t offset_size = offsets_type == OffsetType::uint8 ? 1 : 4;
  if (pass == PoolPass::indices) return y.count() * (offset_size + 8);
  int64_t elements = pass == PoolPass::backward ? x.count() : read_elements(*this);
  return elements * size_of(dtype) + y.count() * (size_of(dtype) + offset_size);
}

namespace {

void check_fused_convolution(const ConvProblem& conv) {
  conv.validate();
  if (conv.pass != ConvPass::fprop) reject("conv_pass", "not fprop", "fprop where the output is pooled");
  if (conv.has_residual) reject("residual", "given", "None where the output is pooled");
}

int64_t input_bytes(const ConvProblem& conv) {
  return (read_elements(conv) + conv.w.count()) * size_of(conv.dtype);
}

}  // namespace

void ConvMaxPoolProblem::validate() const {
  check_fused_convolution(conv);
  pool.validate();
  if (pool.pass != PoolPass::forward) reject("pool_pass", "not forward", "forward where it follows a convolution");
  if (pool.x.sizes != conv.y.sizes) {
    reject("x sizes of the pool", list_of(pool.x.sizes), "those of the convolution's y, " + list_of(conv.y.sizes));
  }
  if (pool.dtype != conv.dtype) reject("dtype of the pool", "another", "that of the convolution");
}

int64_t ConvMaxPoolProblem::compulsory_bytes() const {
  int64_t offset_size = pool.offsets_type == OffsetType::uint8 ? 1 : 4;
  return input_bytes(conv) + pool.y.count() * (size_of(conv.dtype) + offset_size);
}

void ConvGlobalMaxProblem::validate() const {
  check_fused_convolution(conv);
}

int64_t ConvGlobalMaxProblem::compulsory_bytes() const {
  return input_bytes(conv) + outputs() * (size_of(conv.dtype) + 8);
}

void UnpoolProblem::validate() const {
  check_common(index_bits, target);
  check_operand("x", x, index_bits, size_of(dtype));
  check_operand("indices", indices, index_bits, 8);
  check_operand("y", y, index_bits, size_of(dtype));
  if (indices.sizes != x.sizes) reject("indices sizes", list_of(indices.sizes), "those of x, " + list_of(x.sizes));
  check_same_size("batch of y", y.sizes[0], "the batch of x", x.sizes[0]);
  check_same_size("channels of y", y.sizes[1], "the channels of x", x.sizes[1]);
  if (pass == UnpoolPass::gather) {
    check_output("x", x);
  } else {
    check_output("y", y);
  }
}

int64_t UnpoolProblem::flops() const {
  return x.count();
}

int64_t UnpoolProblem::compulsory_bytes() const {
  int64_t size = size_of(dtype);
  return x.count() * (size + 8) + (pass == UnpoolPass::gather ? x.count() : y.count()) * size;
}

void ChannelSumProblem::validate() const {
  check_common(index_bits, target);
  check_operand("x", x, index_bits, size_of(dtype));
}

int64_t ChannelSumProblem::flops() const {
  return x.count();
}

int64_t ChannelSumProblem::compulsory_bytes() const {
  return (x.count() + x.sizes[1]) * size_of(dtype);
}

void ActivationBackwardProblem::validate() const {
  check_common(index_bits, target);
  check_operand("dy", dy, index_bits, size_of(dtype));
  check_operand("saved", saved, index_bits, size_of(dtype));
  check_operand("dz", dz, index_bits, size_of(dtype));
  if (dy.sizes != dz.sizes) reject("dy sizes", list_of(dy.sizes), "those of dz, " + list_of(dz.sizes));
  if (saved.sizes != dz.sizes) reject("saved sizes", list_of(saved.sizes), "those of dz, " + list_of(dz.sizes));
  check_output("dz", dz);
}

int64_t ActivationBackwardProblem::flops() const {
  return dz.count();
}

int64_t ActivationBackwardProblem::compulsory_bytes() const {
  return 3 * dz.count() * size_of(dtype);
}

}  // namespace fastconv
