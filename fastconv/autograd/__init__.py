"""The derivatives of the primitives, as torch.autograd.Functions. Every backward is made of primitives, so any order works."""

from fastconv.autograd.activation import ActivationBackwardFunction
from fastconv.autograd.convolution import (
    ChannelSumFunction,
    Conv2dFunction,
    Conv2dWeightGradientFunction,
    ConvTranspose2dFunction,
)
from fastconv.autograd.fused import Conv2dGlobalMaxFunction, Conv2dMaxPool2dFunction
from fastconv.autograd.pooling import MaxPool2dBackwardFunction, MaxPool2dFunction, MaxPool2dGatherFunction
from fastconv.autograd.unpooling import MaxUnpool2dAddFunction, MaxUnpool2dFunction, MaxUnpool2dGatherFunction

__all__ = [
    "ActivationBackwardFunction",
    "ChannelSumFunction",
    "Conv2dFunction",
    "Conv2dGlobalMaxFunction",
    "Conv2dMaxPool2dFunction",
    "Conv2dWeightGradientFunction",
    "ConvTranspose2dFunction",
    "MaxPool2dBackwardFunction",
    "MaxPool2dFunction",
    "MaxPool2dGatherFunction",
    "MaxUnpool2dAddFunction",
    "MaxUnpool2dFunction",
    "MaxUnpool2dGatherFunction",
]
