// The words that Python says for the values of a problem, and the error that lists the accepted ones.
#pragma once

#include <array>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/problem.h"
#include "common/unpool_problem.h"

namespace fastconv {

using Quad = std::array<int64_t, 4>;
using SizesAndStrides = std::pair<Quad, Quad>;

template <typename Value>
Value parse(const char* argument, const std::string& text, const std::vector<std::pair<const char*, Value>>& accepted) {
  std::string names;
  for (const auto& [name, value] : accepted) {
    if (text == name) return value;
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  throw std::invalid_argument(std::string(argument) + " is '" + text + "', but must be one of " + names);
}

inline DataType parse_dtype(const std::string& text) {
  return parse<DataType>("dtype", text,
                         {{"float64", DataType::float64},
                          {"float32", DataType::float32},
                          {"float16", DataType::float16},
                          {"bfloat16", DataType::bfloat16}});
}

inline const std::vector<std::pair<const char*, ConvPass>> kConvPasses{
    {"fprop", ConvPass::fprop}, {"dgrad", ConvPass::dgrad}, {"wgrad", ConvPass::wgrad}};
inline const std::vector<std::pair<const char*, PoolPass>> kPoolPasses{{"forward", PoolPass::forward},
                                                                       {"backward", PoolPass::backward},
                                                                       {"gather", PoolPass::gather},
                                                                       {"indices", PoolPass::indices}};
inline const std::vector<std::pair<const char*, UnpoolPass>> kUnpoolPasses{
    {"forward", UnpoolPass::forward}, {"add", UnpoolPass::add}, {"gather", UnpoolPass::gather}};
inline const std::vector<std::pair<const char*, Activation>> kActivations{
    {"identity", Activation::identity},   {"relu", Activation::relu}, {"leaky_relu", Activation::leaky_relu},
    {"silu", Activation::silu},           {"gelu", Activation::gelu}, {"sigmoid", Activation::sigmoid},
    {"hardswish", Activation::hardswish}, {"tanh", Activation::tanh}};

inline const std::vector<std::pair<const char*, PaddingMode>> kPaddingModes{{"zeros", PaddingMode::zeros},
                                                                            {"reflect", PaddingMode::reflect},
                                                                            {"replicate", PaddingMode::replicate},
                                                                            {"circular", PaddingMode::circular},
                                                                            {"constant", PaddingMode::constant}};

template <typename Value>
std::string name_of(Value value, const std::vector<std::pair<const char*, Value>>& names) {
  for (const auto& [name, named] : names) {
    if (named == value) return name;
  }
  return "";
}

inline Operand operand_of(const SizesAndStrides& pair) {
  return Operand{pair.first, pair.second};
}

}  // namespace fastconv
