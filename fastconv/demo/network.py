"""The network of the demo, built from whichever modules have torch.nn's layers in them."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import nn

FILTERS = (16, 32)
CLASSES = 10


def build(layers: ModuleType, seed: int, **options: object) -> nn.Sequential:
    """conv -> ReLU -> pool, twice, and a linear layer: [N, 1, 8, 8] -> [N, 10].

    `layers` is torch.nn or fastconv.nn, and options go to its Conv2d and MaxPool2d. The seed alone decides the weights.
    """
    torch.manual_seed(seed)
    first, second = FILTERS
    return nn.Sequential(
        layers.Conv2d(1, first, 3, padding=1, **options),  # [N, 16, 8, 8]
        nn.ReLU(),
        layers.MaxPool2d(2, **options),  # [N, 16, 4, 4]
        layers.Conv2d(first, second, 3, padding=1, **options),  # [N, 32, 4, 4]
        nn.ReLU(),
        layers.MaxPool2d(2, **options),  # [N, 32, 2, 2]
        nn.Flatten(),
        nn.Linear(second * 2 * 2, CLASSES),
    )
