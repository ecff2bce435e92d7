#include "launch/device.h"

#if !FASTCONV_EMULATOR

#include <cuda_runtime.h>

#include <stdexcept>

namespace fastconv {
namespace {

int attribute(cudaDeviceAttr name, int device) {
  int value = 0;
  cudaDeviceGetAttribute(&value, name, device);
  return value;
}

}  // namespace

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

DeviceProperties device_properties(int device) {
  if (device < 0 || device >= device_count()) {
    throw std::invalid_argument("device is " + std::to_string(device) + ", but must be one of the " +
                                std::to_string(device_count()) + " CUDA devices, counted from 0");
  }
  cudaDeviceProp properties;
  cudaError_t error = cudaGetDeviceProperties(&properties, device);
  if (error != cudaSuccess) {
    cudaGetLastError();
    throw std::runtime_error(std::string("cudaGetDeviceProperties: ") + cudaGetErrorString(error));
  }
  return {properties.name,
          properties.major * 10 + properties.minor,
          properties.multiProcessorCount,
          static_cast<int64_t>(properties.totalGlobalMem),
          attribute(cudaDevAttrL2CacheSize, device),
          attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device)};
}

int driver_version() {
  int version = 0;
  cudaDriverGetVersion(&version);
  return version;
}

int runtime_version() {
  int version = 0;
  cudaRuntimeGetVersion(&version);
  return version;
}

}  // namespace fastconv

#endif
