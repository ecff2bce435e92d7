#include "launch/max_pool_windows_instances.h"

namespace fastconv {

template PlanePoolKernel plane_pool_kernel_of<BFloat16>(PoolPass, int, bool);
template ChannelPoolKernel channel_pool_kernel_of<BFloat16>(PoolPass, int);

}  // namespace fastconv
