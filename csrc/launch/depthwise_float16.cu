#include "launch/depthwise_instances.h"

FASTCONV_DEPTHWISE_INSTANCES(fastconv::Half)
FASTCONV_DEPTHWISE_BAND_INSTANCES(fastconv::Half)
