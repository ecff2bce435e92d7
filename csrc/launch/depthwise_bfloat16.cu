#include "launch/depthwise_instances.h"

FASTCONV_DEPTHWISE_INSTANCES(fastconv::BFloat16)
FASTCONV_DEPTHWISE_BAND_INSTANCES(fastconv::BFloat16)
