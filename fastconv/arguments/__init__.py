"""Reads and checks what fastconv.functional is called with, by PyTorch's rules and with the exception types it raises.

A message names the argument, its value and what is accepted, and uses PyTorch's phrases where it has one, so that a search for
either finds the other.
"""

from __future__ import annotations

from fastconv.arguments.convolution import (
    check_bias,
    check_has_channels,
    check_kernel_fits,
    check_padding_mode,
    check_residual,
    check_weight,
    conv_padding,
    padding_value,
    transposed_output_size,
)
from fastconv.arguments.operands import DEVICE_TYPES, DTYPES, autocast, tensors, with_batch
from fastconv.arguments.pooling import adaptive_sizes, check_not_empty, check_pool, check_pool_indices, unpooled_size
from fastconv.arguments.single import (
    IntOrPair,
    Pair,
    activation,
    backend,
    flag,
    group_count,
    not_negative_pair,
    padding_mode,
    pair,
    positive_pair,
)

__all__ = [
    "DEVICE_TYPES",
    "DTYPES",
    "IntOrPair",
    "Pair",
    "activation",
    "adaptive_sizes",
    "autocast",
    "backend",
    "check_bias",
    "check_has_channels",
    "check_kernel_fits",
    "check_not_empty",
    "check_padding_mode",
    "check_pool",
    "check_pool_indices",
    "check_residual",
    "check_weight",
    "conv_padding",
    "flag",
    "group_count",
    "not_negative_pair",
    "padding_mode",
    "padding_value",
    "pair",
    "positive_pair",
    "tensors",
    "transposed_output_size",
    "unpooled_size",
    "with_batch",
]
