"""torch.nn's Conv2d, ConvTranspose2d and MaxPool2d on fastconv's kernels: same constructors, same state dicts."""

from fastconv.nn.convolution import Conv2d, ConvTranspose2d
from fastconv.nn.pooling import MaxPool2d

__all__ = ["Conv2d", "ConvTranspose2d", "MaxPool2d"]
