// The compiled core as Python sees it: problems in, candidates and plans out. The interface is in docs/architecture.md;
// the same file makes _cuda, _emulator and _emulator_checked.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <variant>

#include "launch/registry.h"

#if FASTCONV_EMULATOR
#include "emulator/python_bindings.h"
#else
#include "launch/device.h"
#endif

namespace py = pybind11;

namespace fastconv {
namespace {

using AnyProblem = std::variant<ConvProblem, PoolProblem, UnpoolProblem, ConvMaxPoolProblem, ConvGlobalMaxProblem,
                                ChannelSumProblem, ActivationBackwardProblem>;
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

DataType parse_dtype(const std::string& text) {
  return parse<DataType>("dtype", text,
                         {{"float64", DataType::float64},
                          {"float32", DataType::float32},
                          {"float16", DataType::float16},
                          {"bfloat16", DataType::bfloat16}});
}

const std::vector<std::pair<const char*, ConvPass>> kConvPasses{
    {"fprop", ConvPass::fprop}, {"dgrad", ConvPass::dgrad}, {"wgrad", ConvPass::wgrad}};
const std::vector<std::pair<const char*, PoolPass>> kPoolPasses{{"forward", PoolPass::forward},
                                                                {"backward", PoolPass::backward},
                                                                {"gather", PoolPass::gather},
                                                                {"indices", PoolPass::indices}};
const std::vector<std::pair<const char*, UnpoolPass>> kUnpoolPasses{
    {"forward", UnpoolPass::forward}, {"add", UnpoolPass::add}, {"gather", UnpoolPass::gather}};
const std::vector<std::pair<const char*, Activation>> kActivations{
    {"identity", Activation::identity},   {"relu", Activation::relu}, {"leaky_relu", Activation::leaky_relu},
    {"silu", Activation::silu},           {"gelu", Activation::gelu}, {"sigmoid", Activation::sigmoid},
    {"hardswish", Activation::hardswish}, {"tanh", Activation::tanh}};

const std::vector<std::pair<const char*, PaddingMode>> kPaddingModes{{"zeros", PaddingMode::zeros},
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

Operand operand_of(const SizesAndStrides& pair) {
  return Operand{pair.first, pair.second};
}

std::string op_of(const ConvProblem& problem) {
  return "conv2d_" + name_of(problem.pass, kConvPasses);
}
std::string op_of(const PoolProblem& problem) {
  return "max_pool2d_" + name_of(problem.pass, kPoolPasses);
}
std::string op_of(const ConvMaxPoolProblem&) {
  return "conv2d_max_pool2d";
}
std::string op_of(const ConvGlobalMaxProblem&) {
  return "conv2d_global_max";
}
std::string op_of(const UnpoolProblem& problem) {
  return "max_unpool2d_" + name_of(problem.pass, kUnpoolPasses);
}
std::string op_of(const ChannelSumProblem&) {
  return "channel_sum";
}
std::string op_of(const ActivationBackwardProblem&) {
  return "activation_backward";
}

const std::vector<KernelFamily<ConvProblem>>& families(const ConvProblem& problem) {
  return families_of(problem.pass);
}
const std::vector<KernelFamily<PoolProblem>>& families(const PoolProblem& problem) {
  return families_of(problem.pass);
}
const std::vector<KernelFamily<ConvMaxPoolProblem>>& families(const ConvMaxPoolProblem&) {
  return conv_max_pool_families();
}
const std::vector<KernelFamily<ConvGlobalMaxProblem>>& families(const ConvGlobalMaxProblem&) {
  return conv_global_max_families();
}
const std::vector<KernelFamily<UnpoolProblem>>& families(const UnpoolProblem& problem) {
  return families_of(problem.pass);
}
const std::vector<KernelFamily<ChannelSumProblem>>& families(const ChannelSumProblem&) {
  return channel_sum_families();
}
const std::vector<KernelFamily<ActivationBackwardProblem>>& families(const ActivationBackwardProblem&) {
  return activation_backward_families();
}

// One entry of a launch's tuple of pointers.
struct Slot {
  const char* name;
  bool is_used;      // else the pointer is 0
  int64_t elements;  // an empty tensor may have any pointer
  int alignment;
};

std::vector<Slot> slots_of(const ConvProblem& problem) {
  int size = size_of(problem.dtype);
  int64_t bias = problem.pass == ConvPass::dgrad ? problem.x.sizes[1] : problem.y.sizes[1];
  return {{"x", true, problem.x.count(), size},
          {"w", true, problem.w.count(), size},
          {"y", true, problem.y.count(), size},
          {"bias", problem.has_bias, bias, size},
          {"residual", problem.has_residual, problem.residual.count(), size}};
}

std::vector<Slot> slots_of(const PoolProblem& problem) {
  int size = size_of(problem.dtype), offset_size = problem.offsets_type == OffsetType::uint8 ? 1 : 4;
  bool is_indices = problem.pass == PoolPass::indices;
  return {{"x", !is_indices, problem.x.count(), size},
          {"y", !is_indices, problem.y.count(), size},
          {"offsets", true, problem.offsets.count(), offset_size},
          {"indices", is_indices, problem.y.count(), 8}};
}

// Of a convolution whose output is reduced to `y`; `places` are offsets or indices.
std::vector<Slot> slots_of(const ConvProblem& conv, int64_t outputs, const Slot& places) {
  int size = size_of(conv.dtype);
  return {{"x", true, conv.x.count(), size},
          {"w", true, conv.w.count(), size},
          {"y", true, outputs, size},
          {"bias", conv.has_bias, conv.y.sizes[1], size},
          places};
}

std::vector<Slot> slots_of(const ConvMaxPoolProblem& problem) {
  int64_t outputs = problem.pool.y.count();
  int offset_size = problem.pool.offsets_type == OffsetType::uint8 ? 1 : 4;
  return slots_of(problem.conv, outputs, {"offsets", true, outputs, offset_size});
}

std::vector<Slot> slots_of(const ConvGlobalMaxProblem& problem) {
  return slots_of(problem.conv, problem.outputs(), {"indices", true, problem.outputs(), 8});
}

std::vector<Slot> slots_of(const UnpoolProblem& problem) {
  int size = size_of(problem.dtype);
  return {{"x", true, problem.x.count(), size},
          {"indices", true, problem.indices.count(), 8},
          {"y", true, problem.y.count(), size}};
}

std::vector<Slot> slots_of(const ChannelSumProblem& problem) {
  int size = size_of(problem.dtype);
  return {{"x", true, problem.x.count(), size}, {"sums", true, problem.x.sizes[1], size}};
}

std::vector<Slot> slots_of(const ActivationBackwardProblem& problem) {
  const int size = size_of(problem.dtype);
  return {{"dy", true, problem.dy.count(), size},
          {"saved", true, problem.saved.count(), size},
          {"dz", true, problem.dz.count(), size}};
}

void check_pointer(const Slot& slot, uint64_t pointer) {
  std::string name = std::string("pointer of ") + slot.name;
  if (!slot.is_used && pointer != 0) throw std::invalid_argument(name + " is given, but the problem has none: pass 0");
  if (!slot.is_used || slot.elements == 0) return;
  if (pointer == 0) throw std::invalid_argument(name + " is 0, but the problem needs it");
  if (pointer % slot.alignment != 0) {
    throw std::invalid_argument(name + " is " + std::to_string(pointer) + ", but must be a multiple of " +
                                std::to_string(slot.alignment));
  }
}

py::dict details_of(const Description& description) {
  py::dict details;
  details["grid"] = description.blocks;
  details["block"] = description.threads;
  details["shared_bytes"] = description.shared_bytes;
  details["workspace_bytes"] = description.workspace_bytes;
  details["flops"] = description.flops;
  details["compulsory_bytes"] = description.compulsory_bytes;
  details["predicted_seconds"] = description.predicted_seconds;
  for (const auto& [name, value] : description.choices) details[name.c_str()] = value;
  return details;
}

struct Candidate {
  std::string kernel, config, reason;
  Description description;

  std::string text() const {
    return "Candidate(" + kernel + (config.empty() ? "" : ", " + config) + (reason.empty() ? "" : ": " + reason) + ")";
  }
};

std::vector<Candidate> candidates_of(const AnyProblem& any) {
  std::vector<Candidate> found;
  std::visit(
      [&](const auto& problem) {
        for (const auto& family : families(problem)) {
          for (const std::string& config : family.configs(problem)) {
            Candidate candidate{family.name, config, why_not(family, problem, config), {}};
            if (candidate.reason.empty()) candidate.description = family.prepare(problem, config).description;
            found.push_back(candidate);
          }
        }
      },
      any);
  return found;
}

class Plan {
 public:
  Plan(const AnyProblem& any, const std::string& kernel, const std::string& config) : kernel_(kernel), config_(config) {
    std::visit([&](const auto& problem) { prepare(problem); }, any);
  }

  const Description& description() const { return prepared_.description; }
  std::string text() const { return "Plan(" + op_ + ", " + kernel_ + (config_.empty() ? "" : ", " + config_) + ")"; }

  const Packing& packing() const { return prepared_.packing; }

  void pack(uint64_t w, uint64_t packed, int device, uint64_t stream) const {
    if (packing().bytes == 0) throw std::invalid_argument(text() + " reads w as it is: it has nothing to pack");
    for (const Slot& slot : slots_) {
      if (std::string(slot.name) == "w") check_pointer(slot, w);
    }
    check_pointer({"packed", true, packing().bytes, 16}, packed);
    packing().pack(reinterpret_cast<const void*>(w), reinterpret_cast<void*>(packed), {device, stream});
  }

  void launch(const std::vector<uint64_t>& pointers, uint64_t workspace, int device, uint64_t stream,
              uint64_t packed) const {
    if (pointers.size() != slots_.size()) {
      throw std::invalid_argument(op_ + " takes " + std::to_string(slots_.size()) + " pointers, but was given " +
                                  std::to_string(pointers.size()));
    }
    LaunchArguments arguments;
    for (size_t i = 0; i < slots_.size(); ++i) {
      check_pointer(slots_[i], pointers[i]);
      arguments.pointers[i] = reinterpret_cast<void*>(pointers[i]);
    }
    if (packed != 0) {
      if (packing().bytes == 0) throw std::invalid_argument("packed is given, but " + text() + " reads w as it is");
      check_pointer({"packed", true, packing().bytes, 16}, packed);
    }
    const int64_t skipped = packed != 0 ? packing().skipped_workspace : 0;
    const int64_t workspace_bytes = description().workspace_bytes - skipped;
    if (workspace_bytes > 0) check_pointer({"the workspace", true, workspace_bytes, 16}, workspace);
    arguments.packed_weights = reinterpret_cast<const void*>(packed);
    arguments.workspace = reinterpret_cast<void*>(workspace - skipped);
    arguments.stream = {device, stream};
    prepared_.launch(arguments);
  }

#if FASTCONV_EMULATOR
  // What `launch` would launch, with pointers that are aligned as a tensor of its own is. The host looks at no more of
  // them, and no kernel runs.
  std::vector<emulator::RecordedLaunch> dry_run() const {
    constexpr uint64_t kApart = uint64_t{1} << 40;
    LaunchArguments arguments;
    for (size_t i = 0; i < slots_.size(); ++i) {
      if (slots_[i].is_used) arguments.pointers[i] = reinterpret_cast<void*>((i + 1) * kApart);
    }
    arguments.workspace = reinterpret_cast<void*>((slots_.size() + 1) * kApart);
    emulator::LaunchRecorder recorder;
    if (description().blocks > 0) prepared_.launch(arguments);
    return recorder.launches();
  }
#endif

 private:
  template <typename Problem>
  void prepare(const Problem& problem) {
    problem.validate();
    op_ = op_of(problem);
    slots_ = slots_of(problem);
    std::string known;
    for (const auto& family : families(problem)) {
      if (family.name != kernel_) {
        known += (known.empty() ? "" : ", ") + std::string(family.name);
        continue;
      }
      std::vector<std::string> configs = family.configs(problem);
      if (std::find(configs.begin(), configs.end(), config_) == configs.end()) {
        std::string names;
        for (const std::string& name : configs) names += (names.empty() ? "" : ", ") + ("'" + name + "'");
        throw std::invalid_argument("config is '" + config_ + "', but " + kernel_ + " has " + names);
      }
      std::string reason = why_not(family, problem, config_);
      if (!reason.empty())
        throw std::invalid_argument(kernel_ + " '" + config_ + "' cannot run this problem: " + reason);
      prepared_ = family.prepare(problem, config_);
      return;
    }
    throw std::invalid_argument("kernel is '" + kernel_ + "', but " + op_ + " has " + known);
  }

  std::string op_, kernel_, config_;
  std::vector<Slot> slots_;
  Prepared prepared_;
};

std::vector<std::tuple<std::string, std::string, std::string>> all_kernels() {
  std::vector<std::tuple<std::string, std::string, std::string>> all;
  auto add = [&](const std::string& op, const auto& list) {
    for (const auto& family : list) all.emplace_back(op, family.name, family.description);
  };
  for (const auto& [name, pass] : kConvPasses) add("conv2d_" + std::string(name), families_of(pass));
  for (const auto& [name, pass] : kPoolPasses) add("max_pool2d_" + std::string(name), families_of(pass));
  add("conv2d_max_pool2d", conv_max_pool_families());
  add("conv2d_global_max", conv_global_max_families());
  for (const auto& [name, pass] : kUnpoolPasses) add("max_unpool2d_" + std::string(name), families_of(pass));
  add("channel_sum", channel_sum_families());
  add("activation_backward", activation_backward_families());
  return all;
}

void bind_problems(py::module_& module) {
  py::class_<ConvProblem>(module, "ConvProblem", py::module_local())
      .def(py::init([](const std::string& conv_pass, const std::string& dtype, const SizesAndStrides& x,
                       const SizesAndStrides& w, const SizesAndStrides& y, std::array<int, 2> stride,
                       std::array<int, 4> padding, std::array<int, 2> dilation, int groups,
                       const std::string& padding_mode, double padding_value, bool has_bias,
                       const std::optional<SizesAndStrides>& residual, const std::string& activation, int index_bits,
                       bool allow_tf32, bool deterministic, int64_t most_workspace_bytes, int capability,
                       int multiprocessors) {
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
             problem.index_bits = index_bits;
             problem.allow_tf32 = allow_tf32;
             problem.deterministic = deterministic;
             problem.most_workspace_bytes = most_workspace_bytes;
             problem.target = {capability, multiprocessors};
             problem.validate();
             return problem;
           }),
           py::kw_only(), py::arg("conv_pass"), py::arg("dtype"), py::arg("x"), py::arg("w"), py::arg("y"),
           py::arg("stride") = std::array<int, 2>{1, 1}, py::arg("padding") = std::array<int, 4>{0, 0, 0, 0},
           py::arg("dilation") = std::array<int, 2>{1, 1}, py::arg("groups") = 1, py::arg("padding_mode") = "zeros",
           py::arg("padding_value") = 0.0, py::arg("has_bias") = false, py::arg("residual") = py::none(),
           py::arg("activation") = "identity", py::arg("index_bits") = 32, py::arg("allow_tf32") = false,
           py::arg("deterministic") = true, py::arg("most_workspace_bytes") = ConvProblem().most_workspace_bytes,
           py::arg("capability") = 80, py::arg("multiprocessors") = 108)
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
             problem.index_bits = index_bits;
             problem.target = {capability, multiprocessors};
             problem.validate();
             return problem;
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
             problem.index_bits = index_bits;
             problem.target = {capability, multiprocessors};
             problem.validate();
             return problem;
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
             problem.index_bits = index_bits;
             problem.target = {capability, multiprocessors};
             problem.validate();
             return problem;
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
             problem.index_bits = index_bits;
             problem.target = {capability, multiprocessors};
             problem.validate();
             return problem;
           }),
           py::kw_only(), py::arg("dtype"), py::arg("dy"), py::arg("saved"), py::arg("dz"), py::arg("activation"),
           py::arg("index_bits") = 32, py::arg("capability") = 80, py::arg("multiprocessors") = 108)
      .def_property_readonly("op", [](const ActivationBackwardProblem& problem) { return op_of(problem); });
}

void bind_plans(py::module_& module) {
  py::class_<Candidate>(module, "Candidate", py::module_local())
      .def_readonly("kernel", &Candidate::kernel)
      .def_readonly("config", &Candidate::config)
      .def_readonly("reason", &Candidate::reason)
      .def_property_readonly("details",
                             [](const Candidate& candidate) {
                               return candidate.reason.empty() ? details_of(candidate.description) : py::dict();
                             })
      .def("__repr__", &Candidate::text);

  py::class_<Plan> plan(module, "Plan", py::module_local());
  plan.def(py::init<const AnyProblem&, const std::string&, const std::string&>(), py::arg("problem"), py::arg("kernel"),
           py::arg("config"))
      .def_property_readonly("workspace_bytes", [](const Plan& plan) { return plan.description().workspace_bytes; })
      .def_property_readonly("details", [](const Plan& plan) { return details_of(plan.description()); })
      .def_property_readonly("packed_bytes", [](const Plan& plan) { return plan.packing().bytes; })
      .def_property_readonly(
          "packed_workspace_bytes",
          [](const Plan& plan) { return plan.description().workspace_bytes - plan.packing().skipped_workspace; })
      .def_property_readonly("packing_key", [](const Plan& plan) { return py::bytes(plan.packing().key); })
      .def("pack", &Plan::pack, py::arg("w"), py::arg("packed"), py::arg("device") = 0, py::arg("stream") = 0,
           py::call_guard<py::gil_scoped_release>())
      .def("launch", &Plan::launch, py::arg("pointers"), py::arg("workspace") = 0, py::arg("device") = 0,
           py::arg("stream") = 0, py::arg("packed") = 0, py::call_guard<py::gil_scoped_release>())
      .def("__repr__", &Plan::text);
#if FASTCONV_EMULATOR
  plan.def(
      "dry_run",
      [](const Plan& self) {
        py::list launches;
        for (const emulator::RecordedLaunch& launch : self.dry_run()) launches.append(emulator::to_python(launch));
        return launches;
      },
      "The kernels that `launch` would start, in order, with the names that a compiler gives them. None runs.");
#endif

  module.def("candidates", &candidates_of, py::arg("problem"),
             "Every configuration of every kernel of the problem's op, the impossible ones with their reason.");
  module.def("kernels", &all_kernels, "(op, kernel, description) of every kernel family.");
}

py::dict build_info() {
  py::dict info;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#else
  info["compiler"] = "gcc " __VERSION__;
#endif
#if FASTCONV_EMULATOR
  info["kind"] = "emulator";
#if FASTCONV_EMULATOR_CHECKED
  info["checked"] = true;
#else
  info["checked"] = false;
#endif
#if defined(__AVX2__)
  info["instruction_set"] = "x86-64-v3";
#else
  info["instruction_set"] = "baseline";
#endif
#else
  info["kind"] = "cuda";
  info["architectures"] = FASTCONV_CUDA_ARCHS;
  info["cuda_version"] = runtime_version();
#endif
  return info;
}

#if !FASTCONV_EMULATOR
void bind_device(py::module_& module) {
  module.def("device_count", &device_count, "CUDA devices; 0 where there is no driver.");
  module.def("driver_version", &driver_version,
             "Version of CUDA that the driver serves, 13000 for 13.0; 0 without one.");
  module.def("runtime_version", &runtime_version, "Version of the CUDA runtime linked in, 13000 for 13.0.");
  module.def(
      "device_properties",
      [](int device) {
        DeviceProperties properties = device_properties(device);
        py::dict result;
        result["name"] = properties.name;
        result["capability"] = properties.capability;
        result["multiprocessors"] = properties.multiprocessors;
        result["memory_bytes"] = properties.memory_bytes;
        result["l2_bytes"] = properties.l2_bytes;
        result["shared_bytes_per_block"] = properties.shared_bytes_per_block;
        return result;
      },
      py::arg("device"));
}
#endif

}  // namespace
}  // namespace fastconv

PYBIND11_MODULE(FASTCONV_MODULE_NAME, module) {
  fastconv::bind_problems(module);
  fastconv::bind_plans(module);
  module.def("build_info", &fastconv::build_info);
#if FASTCONV_EMULATOR
  fastconv::emulator::bind_emulator(module);
#else
  fastconv::bind_device(module);
#endif
}
