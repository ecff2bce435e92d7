"""fastconv: hand-written CUDA C++ and Triton kernels for 2-D convolution, max pooling and transposed convolution.

>>> import torch, fastconv
>>> fastconv.conv2d(torch.ones(1, 3, 8, 8), torch.ones(4, 3, 3, 3), padding=1).shape
torch.Size([1, 4, 8, 8])
"""

from fastconv import autograd, dispatch, functional, nn
from fastconv._version import __version__
from fastconv.convert import convert, revert
from fastconv.explain import explain
from fastconv.functional import (
    adaptive_max_pool2d,
    conv2d,
    conv2d_global_max,
    conv2d_max_pool2d,
    conv_transpose2d,
    max_pool2d,
    max_unpool2d,
)
from fastconv.intercept import intercept
from fastconv.registration import register_kernel, unregister_kernel

__all__ = [
    "__version__",
    "adaptive_max_pool2d",
    "autograd",
    "conv2d",
    "conv2d_global_max",
    "conv2d_max_pool2d",
    "conv_transpose2d",
    "convert",
    "dispatch",
    "explain",
    "functional",
    "intercept",
    "max_pool2d",
    "max_unpool2d",
    "nn",
    "register_kernel",
    "revert",
    "unregister_kernel",
]
