"""torch.nn's Conv2d, ConvTranspose2d and MaxPool2d on fastconv's kernels: same constructors, same state dicts.

And a convolution with a pool over it as one module, with the state dict of the convolution.
"""

from fastconv.nn.convolution import Conv2d, ConvTranspose2d
from fastconv.nn.fused import Conv2dGlobalMax, Conv2dMaxPool2d
from fastconv.nn.pooling import MaxPool2d

__all__ = ["Conv2d", "Conv2dGlobalMax", "Conv2dMaxPool2d", "ConvTranspose2d", "MaxPool2d"]
