"""The training loop of the demo: the same steps, in the same order, for whichever layers the network is made of."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from fastconv.demo.digits import Digits

BATCH = 64
PEAK_LEARNING_RATE = 0.02


@dataclasses.dataclass(frozen=True)
class Training:
    losses: list[float]  # one a step
    predictions: torch.Tensor  # [360], of the test digits
    accuracy: float  # on the test digits, 0..1
    seconds: float  # of the training loop


def steps(digits: Digits, epochs: int) -> int:
    return epochs * -(-len(digits.train_labels) // BATCH)


def train(
    network: nn.Module, digits: Digits, epochs: int, seed: int, on_step: Callable[[int, float], None]
) -> Training:
    """Trains with Adam, a learning rate that rises and falls, and batches in the order that the seed gives.

    on_step is called with the number of steps done and the loss of the last one.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=PEAK_LEARNING_RATE)
    total = steps(digits, epochs)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=total)
    order = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    start = time.perf_counter()
    for _ in range(epochs):
        for batch in torch.randperm(len(digits.train_labels), generator=order).split(BATCH):
            images = digits.train_images[batch]  # [64, 1, 8, 8]
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images), digits.train_labels[batch])
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            on_step(len(losses), losses[-1])
    seconds = time.perf_counter() - start
    with torch.no_grad():
        predictions = network(digits.test_images).argmax(1)
    accuracy = (predictions == digits.test_labels).float().mean().item()
    return Training(losses, predictions.cpu(), accuracy, seconds)
