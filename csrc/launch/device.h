// What the CUDA runtime knows of this machine. Only in the module that nvcc builds.
#pragma once

#include <cstdint>
#include <string>

namespace fastconv {

struct DeviceProperties {
  std::string name;
  int capability;  // 90 for 9.0
  int multiprocessors;
  int64_t memory_bytes;
  int64_t l2_bytes;
  int64_t shared_bytes_per_block;  // that a kernel can ask for
};

// 0 where there is no driver or no device.
int device_count();
DeviceProperties device_properties(int device);
// 13000 for 13.0; the driver's is that of the CUDA it serves, 0 where there is none.
int driver_version();
int runtime_version();

}  // namespace fastconv
