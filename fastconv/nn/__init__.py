"""torch.nn's convolutions and 2-D max pooling on fastconv's kernels: same constructors, same state dicts.

And a convolution with a pool over it as one module, with the state dict of the convolution.
"""

from fastconv.nn.convolution import Conv2d, ConvTranspose2d
from fastconv.nn.fused import Conv2dGlobalMax, Conv2dMaxPool2d
from fastconv.nn.pooling import AdaptiveMaxPool2d, MaxPool2d, MaxUnpool2d

__all__ = [
    "AdaptiveMaxPool2d",
    "Conv2d",
    "Conv2dGlobalMax",
    "Conv2dMaxPool2d",
    "ConvTranspose2d",
    "MaxPool2d",
    "MaxUnpool2d",
]
