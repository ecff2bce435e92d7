// The compiled core as Python sees it: problems in, candidates and plans out. The interface is in docs/architecture.md;
// the same file makes _cuda, _emulator and _emulator_checked.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/ops.h"
#include "bindings/plan.h"
#include "bindings/problems.h"

#if FASTCONV_EMULATOR
#include "emulator/python_bindings.h"
#else
#include "launch/device.h"
#endif

namespace fastconv {
namespace {

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
