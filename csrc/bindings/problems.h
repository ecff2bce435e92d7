// The problems as classes of Python, each made from keywords and checked before it is there.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "bindings/ops.h"
#include "bindings/words.h"
#include "common/problem.h"
#include "common/unpool_problem.h"

namespace fastconv {

namespace py = pybind11;

// A problem with what all of them end with, checked.
template <class Problem>
Problem finished(Problem problem, int index_bits, int capability, int multiprocessors, int64_t l2_bytes = 0) {
  problem.index_bits = index_bits;
  problem.target = {capability, multiprocessors, l2_bytes};
  problem.validate();
  return problem;
}

inline void bind_problems(py::module_& module) {
  py::class_<ConvProblem>(module, "ConvProblem", py::module_local())
      .def(py::init([](const std::string& conv_pass, const std::string& dtype, const SizesAndStrides& x,
                       const SizesAndStrides& w, const SizesAndStrides& y, std::array<int, 2> stride,
                       std::array<int, 4> padding, std::array<int, 2> dilation, int groups,
                       const std::string& padding_mode, double padding_value, bool has_bias,
                       const std::optional<SizesAndStrides>& residual, const std::string& activation, int index_bits,
                       bool allow_tf32, bool deterministic, int64_t most_workspace_bytes, int capability,
                       int multiprocessors, int64_t l2_bytes) {
             ConvProblem problem;
             problem.pass = parse("conv_pass", conv_pass, kConvPasses);
             problem.dtype = parse_dtype(dtype);
             problem.x = operand_of(x);
             problem.w = operand_of(w);
             problem.y = operand_of(y);
             problem.stride = stride;
             problem.padding = padding;
             problem.dilation = dilation;
             problem.groups = groups;
             problem.padding_mode = parse("padding_mode", padding_mode, kPaddingModes);
             problem.padding_value = padding_value;
             problem.has_bias = has_bias;
             problem.has_residual = residual.has_value();
             if (residual) problem.residual = operand_of(*residual);
             problem.activation = parse("activation", activation, kActivations);
             problem.allow_tf32 = allow_tf32;
             problem.deterministic = deterministic;
             problem.most_workspace_bytes = most_workspace_bytes;
             return finished(problem, index_bits, capability, multiprocessors, l2_bytes);
           }),
           py::kw_only(), py::arg("conv_pass"), py::arg("dtype"), py::arg("x"), py::arg("w"), py::arg("y"),
           py::arg("stride") = std::array<int, 2>{1, 1}, py::arg("padding") = std::array<int, 4>{0, 0, 0, 0},
           py::arg("dilation") = std::array<int, 2>{1, 1}, py::arg("groups") = 1, py::arg("padding_mode") = "zeros",
           py::arg("padding_value") = 0.0, py::arg("has_bias") = false, py::arg("residual") = py::none(),
           py::arg("activation") = "identity", py::arg("index_bits") = 32, py::arg("allow_tf32") = false,
           py::arg("deterministic") = true, py::arg("most_workspace_bytes") = ConvProblem().most_workspace_bytes,
           py::arg("capability") = 80, py::arg("multiprocessors") = 108, py::arg("l2_bytes") = 0)
      .def_property_readonly("op", [](const ConvProblem& problem) { return op_of(problem); });

  py::class_<PoolProblem>(module, "PoolProblem", py::module_local())
      .def(py::init([](const std::string& pool_pass, const std::string& dtype, const SizesAndStrides& x,
                       const SizesAndStrides& y, const SizesAndStrides& offsets, const std::string& offsets_dtype,
                       std::array<int, 2> kernel, std::array<int, 2> stride, std::array<int, 2> padding,
                       std::array<int, 2> dilation, int index_bits, int capability, int multiprocessors) {
             PoolProblem problem;
             problem.pass = parse("pool_pass", pool_pass, kPoolPasses);
             problem.dtype = parse_dtype(dtype);
             problem.x = operand_of(x);
             problem.y = operand_of(y);
             problem.offsets = operand_of(offsets);
             problem.offsets_type = parse<OffsetType>("offsets_dtype", offsets_dtype,
                                                      {{"uint8", OffsetType::uint8}, {"int32", OffsetType::int32}});
             problem.kernel = kernel;
             problem.stride = stride;
             problem.padding = padding;
             problem.dilation = dilation;
             return finished(problem, index_bits, capability, multiprocessors);
           }),
           py::kw_only(), py::arg("pool_pass"), py::arg("dtype"), py::arg("x"), py::arg("y"), py::arg("offsets"),
           py::arg("offsets_dtype") = "uint8", py::arg("kernel"), py::arg("stride"),
           py::arg("padding") = std::array<int, 2>{0, 0}, py::arg("dilation") = std::array<int, 2>{1, 1},
           py::arg("index_bits") = 32, py::arg("capability") = 80, py::arg("multiprocessors") = 108)
      .def_property_readonly("op", [](const PoolProblem& problem) { return op_of(problem); });

  py::class_<ConvMaxPoolProblem>(module, "ConvMaxPoolProblem", py::module_local())
      .def(py::init([](const ConvProblem& conv, const PoolProblem& pool) {
             ConvMaxPoolProblem problem{conv, pool};
             problem.validate();
             return problem;
           }),
           py::kw_only(), py::arg("conv"), py::arg("pool"))
      .def_property_readonly("op", [](const ConvMaxPoolProblem& problem) { return op_of(problem); });

  py::class_<ConvGlobalMaxProblem>(module, "ConvGlobalMaxProblem", py::module_local())
      .def(py::init([](const ConvProblem& conv) {
             ConvGlobalMaxProblem problem{conv};
             problem.validate();
             return problem;
           }),
           py::kw_only(), py::arg("conv"))
      .def_property_readonly("op", [](const ConvGlobalMaxProblem& problem) { return op_of(problem); });

  py::class_<UnpoolProblem>(module, "UnpoolProblem", py::module_local())
      .def(py::init([](const std::string& unpool_pass, const std::string& dtype, const SizesAndStrides& x,
                       const SizesAndStrides& indices, const SizesAndStrides& y, int index_bits, int capability,
                       int multiprocessors) {
             UnpoolProblem problem;
             problem.pass = parse("unpool_pass", unpool_pass, kUnpoolPasses);
             problem.dtype = parse_dtype(dtype);
             problem.x = operand_of(x);
             problem.indices = operand_of(indices);
             problem.y = operand_of(y);
             return finished(problem, index_bits, capability, multiprocessors);
           }),
           py::kw_only(), py::arg("unpool_pass"), py::arg("dtype"), py::arg("x"), py::arg("indices"), py::arg("y"),
           py::arg("index_bits") = 32, py::arg("capability") = 80, py::arg("multiprocessors") = 108)
      .def_property_readonly("op", [](const UnpoolProblem& problem) { return op_of(problem); });

  py::class_<ChannelSumProblem>(module, "ChannelSumProblem", py::module_local())
      .def(py::init([](const std::string& dtype, const SizesAndStrides& x, int index_bits, int capability,
                       int multiprocessors) {
             ChannelSumProblem problem;
             problem.dtype = parse_dtype(dtype);
             problem.x = operand_of(x);
             return finished(problem, index_bits, capability, multiprocessors);
           }),
           py::kw_only(), py::arg("dtype"), py::arg("x"), py::arg("index_bits") = 32, py::arg("capability") = 80,
           py::arg("multiprocessors") = 108)
      .def_property_readonly("op", [](const ChannelSumProblem& problem) { return op_of(problem); });

  py::class_<ActivationBackwardProblem>(module, "ActivationBackwardProblem", py::module_local())
      .def(py::init([](const std::string& dtype, const SizesAndStrides& dy, const SizesAndStrides& saved,
                       const SizesAndStrides& dz, const std::string& activation, int index_bits, int capability,
                       int multiprocessors) {
             ActivationBackwardProblem problem;
             problem.dtype = parse_dtype(dtype);
             problem.dy = operand_of(dy);
             problem.saved = operand_of(saved);
             problem.dz = operand_of(dz);
             problem.activation = parse("activation", activation, kActivations);
             return finished(problem, index_bits, capability, multiprocessors);
           }),
           py::kw_only(), py::arg("dtype"), py::arg("dy"), py::arg("saved"), py::arg("dz"), py::arg("activation"),
           py::arg("index_bits") = 32, py::arg("capability") = 80, py::arg("multiprocessors") = 108)
      .def_property_readonly("op", [](const ActivationBackwardProblem& problem) { return op_of(problem); });
}

}  // namespace fastconv
