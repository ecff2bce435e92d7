// The emulator's switches and counters for fastconv/emulator.py, in a submodule `control` of either emulated module.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <vector>

#include "emulator/counters.h"
#include "emulator/device.h"
#include "emulator/launch.h"
#include "emulator/launch_recorder.h"
#include "emulator/place.h"
#include "emulator/settings.h"

namespace fastconv::emulator {

inline pybind11::list to_python(const std::vector<SectorRun>& runs) {
  pybind11::list list;
  for (const SectorRun& run : runs) list.append(pybind11::make_tuple(run.first, run.end));
  return list;
}

inline pybind11::dict to_python(const LaunchRecord& record) {
  namespace py = pybind11;
  py::list accesses, tensors;
  for (const AccessRecord& access : record.accesses) {
    py::dict entry;
    entry["target"] = access.target;
    entry["space"] = access.shared ? "shared" : "global";
    entry["kind"] = name_of(access.kind);
    entry["width"] = access.width;
    entry["site"] = reinterpret_cast<uintptr_t>(access.site);
    entry["accesses"] = access.accesses;
    entry["requests"] = access.requests;
    entry["sectors"] = access.sectors;
    entry["wavefronts"] = access.wavefronts;
    entry["ideal_wavefronts"] = access.ideal_wavefronts;
    accesses.append(entry);
  }
  for (const TensorRecord& tensor : record.tensors) {
    py::dict entry;
    entry["name"] = tensor.name;
    entry["bytes"] = tensor.bytes;
    entry["loaded_bytes"] = tensor.loaded_bytes;
    entry["stored_bytes"] = tensor.stored_bytes;
    entry["loaded_sectors"] = to_python(tensor.loaded_sectors);
    entry["stored_sectors"] = to_python(tensor.stored_sectors);
    entry["streamed_sectors"] = to_python(tensor.streamed_sectors);
    tensors.append(entry);
  }
  py::dict launch;
  launch["kernel"] = record.kernel;
  launch["grid"] = py::make_tuple(record.grid.x, record.grid.y, record.grid.z);
  launch["block"] = py::make_tuple(record.block.x, record.block.y, record.block.z);
  launch["dynamic_shared_bytes"] = record.dynamic_shared_bytes;
  launch["static_shared_bytes"] = record.static_shared_bytes;
  launch["accesses"] = accesses;
  launch["tensors"] = tensors;
  launch["operations"] = record.operations;
  return launch;
}

inline pybind11::dict to_python(const RecordedLaunch& recorded) {
  namespace py = pybind11;
  py::dict launch;
  launch["kernel"] = recorded.kernel;
  launch["symbol"] = recorded.symbol;
  launch["grid"] = py::make_tuple(recorded.grid.x, recorded.grid.y, recorded.grid.z);
  launch["block"] = py::make_tuple(recorded.block.x, recorded.block.y, recorded.block.z);
  launch["shared_bytes"] = recorded.shared_bytes;
  return launch;
}

inline std::vector<std::string> lines_of(const std::vector<uintptr_t>& sites) {
  std::vector<const void*> places;
  for (const uintptr_t site : sites) places.push_back(reinterpret_cast<const void*>(site));
  look_up_lines(places);
  std::vector<std::string> lines;
  for (const void* place : places) lines.push_back(line_of(place));
  return lines;
}

inline void bind_emulator(pybind11::module_& module) {
  namespace py = pybind11;
  // The class is Python's, shared by both modules; it is looked up when it is needed, so that importing a module does
  // not import the package.
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const KernelError& error) {
      const py::object type = py::module_::import("fastconv.emulator").attr("KernelError");
      PyErr_SetString(type.ptr(), error.what());
    }
  });
  py::module_ control = module.def_submodule("control", "Switches and counters of the emulator; see fastconv.emulator");
  control.def(
      "watch",
      [](bool check, bool count, bool shuffled, uint64_t seed) { set_settings({check, count, shuffled, seed}); },
      py::arg("check"), py::arg("count"), py::arg("shuffled"), py::arg("seed"));
  control.def("set_device", &set_device, py::arg("capability"));
  control.def("device", [] {
    const Device& device = current_device();
    return py::make_tuple(device.name, device.capability, device.multiprocessors);
  });
  control.def("set_threads", &set_worker_threads, py::arg("threads"));
  control.def("threads", &worker_threads);
  control.def("take_launches", [] {
    py::list launches;
    for (const LaunchRecord& record : take_launch_records()) launches.append(to_python(record));
    return launches;
  });
  control.def("source_lines", &lines_of, py::arg("sites"));
}

}  // namespace fastconv::emulator
