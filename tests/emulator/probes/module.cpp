// The probes as a Python module.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>

#include "emulator/python_bindings.h"
#include "probe.h"

namespace {

struct Registered {
  Probe kernel;
  int max_threads;
};

std::map<std::string, Registered>& probes() {
  static std::map<std::string, Registered> all;
  return all;
}

using Size = std::array<unsigned, 3>;
using Tensor = std::tuple<std::string, uintptr_t, size_t, bool>;  // name, address, bytes, writable

void run(const std::string& name, Size grid, Size block, size_t dynamic_bytes, const std::vector<Tensor>& tensors,
         int n) {
  using namespace fastconv::emulator;
  const Registered probe = probes().at(name);
  Arguments arguments{{}, n};
  LaunchRequest request;
  request.kernel = name.c_str();
  request.grid = dim3(grid[0], grid[1], grid[2]);
  request.block = dim3(block[0], block[1], block[2]);
  request.dynamic_shared_bytes = dynamic_bytes;
  request.max_threads = probe.max_threads;
  request.function = reinterpret_cast<const void*>(probe.kernel);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto& [tensor, address, bytes, writable] = tensors[i];
    arguments.pointers[i] = reinterpret_cast<void*>(address);
    if (bytes > 0) request.tensors.push_back({arguments.pointers[i], bytes, tensor.c_str(), writable});
  }
  launch(request, [&] { probe.kernel(arguments); });
}

}  // namespace

ProbeEntry::ProbeEntry(const char* name, Probe kernel, int max_threads) {
  probes()[name] = {kernel, max_threads};
}

static void bind(pybind11::module_& module) {
  namespace py = pybind11;
  fastconv::emulator::bind_emulator(module);
  module.def("run", &run, py::arg("name"), py::arg("grid"), py::arg("block"), py::arg("dynamic_bytes"),
             py::arg("tensors"), py::arg("n"), py::call_guard<py::gil_scoped_release>());
}

// The same object serves both builds, and Python tells modules apart by name.
PYBIND11_MODULE(probes_fast, module) {
  bind(module);
}
PYBIND11_MODULE(probes_checked, module) {
  bind(module);
}
