#include "launch/depthwise_instances.h"

FASTCONV_DEPTHWISE_INSTANCES(float)
