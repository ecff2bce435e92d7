"""Trains the two networks of the demo, from the same seed on the same batches, and compares them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import torch
from torch import nn

import fastconv
from fastconv.demo import network
from fastconv.demo.digits import Digits
from fastconv.demo.training import BATCH, Training, train
from fastconv.explain import Explanation

REQUIRED_ACCURACY = 0.97


@dataclasses.dataclass(frozen=True)
class Comparison:
    network: nn.Sequential  # trained on fastconv's kernels
    ours: Training
    theirs: Training
    explanation: Explanation  # of one step: which kernel ran which layer, forward and backward

    @property
    def largest_difference(self) -> float:
        """Of the two loss curves, at any step."""
        return max(abs(ours - theirs) for ours, theirs in zip(self.ours.losses, self.theirs.losses, strict=True))

    @property
    def good(self) -> bool:
        return min(self.ours.accuracy, self.theirs.accuracy) >= REQUIRED_ACCURACY


Progress = Callable[[str, int, float], None]  # "fastconv" or "torch.nn", steps done, loss


def compare(digits: Digits, backend: str, epochs: int, seed: int, on_step: Progress) -> Comparison:
    """Both trainings run on the device that the digits are on."""
    device = digits.train_images.device
    ours = network.build(fastconv.nn, seed, backend=backend).to(device)
    theirs = network.build(nn, seed).to(device)
    # Parallel loops inside layers this small cost more than they bring; the emulator has threads of its own.
    with _one_thread():
        return Comparison(
            theirs=train(theirs, digits, epochs, seed, lambda step, loss: on_step("torch.nn", step, loss)),
            ours=train(ours, digits, epochs, seed, lambda step, loss: on_step("fastconv", step, loss)),
            network=ours,
            explanation=_explain_step(ours, digits),
        )


def _explain_step(ours: nn.Sequential, digits: Digits) -> Explanation:
    hook = ours.register_forward_hook(lambda module, arguments, output: output.sum().backward())
    try:
        return fastconv.explain(ours, digits.train_images[:BATCH])
    finally:
        hook.remove()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
