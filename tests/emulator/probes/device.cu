// The probes on a CUDA device, behind one C function that ctypes can call. nvcc compiles it together with them.
#include <cuda_runtime.h>

#include <map>
#include <string>

#include "probe.h"

namespace {

std::map<std::string, Probe>& probes() {
  static std::map<std::string, Probe> all;
  return all;
}

}  // namespace

ProbeEntry::ProbeEntry(const char* name, Probe kernel, int) {
  probes()[name] = kernel;
}

// grid, block: 3 numbers each; pointers: 4. Returns what went wrong, or "".
extern "C" const char* run_probe(const char* name, const unsigned* grid, const unsigned* block, size_t dynamic_bytes,
                                 void* const* pointers, int n) {
  const auto found = probes().find(name);
  if (found == probes().end()) return "there is no probe of that name";
  Arguments arguments{{pointers[0], pointers[1], pointers[2], pointers[3]}, n};
  void* parameters[] = {&arguments};
  cudaError_t error = cudaLaunchKernel(reinterpret_cast<const void*>(found->second), dim3(grid[0], grid[1], grid[2]),
                                       dim3(block[0], block[1], block[2]), parameters, dynamic_bytes, nullptr);
  if (error == cudaSuccess) error = cudaDeviceSynchronize();
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}
