#include "launch/direct_conv_instances.h"

FASTCONV_DIRECT_CONV_INSTANCES(fastconv::Half)
