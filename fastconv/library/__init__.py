"""torch.ops.fastconv: the primitives, their fake implementations and their batching rules."""

from fastconv.library import batching
from fastconv.library.primitives import (
    LIBRARY,
    activation_backward,
    channel_sum,
    conv2d_dgrad,
    conv2d_fprop,
    conv2d_global_max,
    conv2d_max_pool2d,
    conv2d_wgrad,
    max_pool2d_backward,
    max_pool2d_forward,
    max_pool2d_gather,
    max_pool2d_indices,
    max_unpool2d_add,
    max_unpool2d_forward,
    max_unpool2d_gather,
)

__all__ = [
    "LIBRARY",
    "activation_backward",
    "batching",
    "channel_sum",
    "conv2d_dgrad",
    "conv2d_fprop",
    "conv2d_global_max",
    "conv2d_max_pool2d",
    "conv2d_wgrad",
    "max_pool2d_backward",
    "max_pool2d_forward",
    "max_pool2d_gather",
    "max_pool2d_indices",
    "max_unpool2d_add",
    "max_unpool2d_forward",
    "max_unpool2d_gather",
]
