#include "launch/direct_wgrad_instances.h"

FASTCONV_DIRECT_WGRAD_INSTANCES(float)
