"""The picture of the demo: loss curves, learned filters, what they see in one digit, and the digits that were got wrong."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.ticker import LogLocator, NullLocator
from torch import nn

from fastconv.demo.comparison import Comparison
from fastconv.demo.digits import Digits
from fastconv.demo.training import Training

MOST_MISTAKES = 10
INK = "#1b1f24"
OURS, THEIRS = "#d1495b", "#2e4057"
HEADING = {"fontsize": 10, "fontweight": "bold", "pad": 6}
TILE_SCALE = 12
SMALLEST_DIFFERENCE = 1e-9


def draw(path: Path, title: str, compared: Comparison, digits: Digits) -> None:
    """Writes the picture as a PNG. The digits are on the device of the networks."""
    network, ours, theirs = compared.network, compared.ours, compared.theirs
    with plt.rc_context({"font.size": 9, "text.color": INK, "axes.edgecolor": "#8a9099", "axes.labelcolor": INK}):
        figure = plt.figure(figsize=(12, 6.5), dpi=110, facecolor="white")
        figure.text(0.5, 0.965, title, fontsize=13, fontweight="bold", ha="center", va="center")
        grid = figure.add_gridspec(1, 2, left=0.065, right=0.985, top=0.885, bottom=0.02, wspace=0.08)
        left = grid[0].subgridspec(2, 1, height_ratios=[1.7, 1], hspace=0.36)
        right = grid[1].subgridspec(3, 1, height_ratios=[1.35, 1.1, 1.5], hspace=0.2)
        _loss_curves(figure, left[0], ours, theirs)
        _mistakes(figure, left[1], ours, digits)
        _filters(figure, right[0], network)
        _feature_maps(figure, right[1], right[2], network, digits)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
        plt.close(figure)


def _loss_curves(figure: Figure, place: SubplotSpec, ours: Training, theirs: Training) -> None:
    loss, difference = place.subgridspec(2, 1, height_ratios=[2.2, 1], hspace=0.1).subplots(sharex=True)
    steps = np.arange(1, len(ours.losses) + 1)
    loss.plot(steps, theirs.losses, color=THEIRS, linewidth=4, alpha=0.35, label=f"torch.nn: {_right(theirs)}")
    loss.plot(steps, ours.losses, color=OURS, linewidth=1.2, label=f"fastconv: {_right(ours)}")
    loss.set(ylabel="training loss", yscale="log")
    loss.set_title("The same network, seed and batches, on both", **HEADING)
    loss.legend(frameon=False, loc="upper right")
    apart = np.abs(np.subtract(ours.losses, theirs.losses))
    # A difference of exactly zero has no place on a log axis; the axis ends where float32 does.
    difference.plot(steps, np.maximum(apart, SMALLEST_DIFFERENCE), color=INK, linewidth=1)
    difference.set(xlabel="step", ylabel="difference", yscale="log")
    difference.set_ylim(SMALLEST_DIFFERENCE, max(1e-6, 3 * apart.max()))
    difference.yaxis.set_major_locator(LogLocator(numticks=4))
    difference.yaxis.set_minor_locator(NullLocator())
    for axes in (loss, difference):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e3e6ea", linewidth=0.6)
        axes.set_xlim(0, len(steps))
        axes.yaxis.set_label_coords(-0.09, 0.5)


def _right(training: Training) -> str:
    return f"{training.accuracy:.1%} of the test digits right"


def _filters(figure: Figure, place: SubplotSpec, network: nn.Sequential) -> None:
    weights = network[0].weight.detach().cpu()[:, 0]  # [16, 3, 3]
    axes = _panel(figure, place, f"The {len(weights)} filters of the first convolution (red +, blue -)")
    limit = weights.abs().max().item()
    axes.imshow(_tiles(weights, columns=8), cmap=_with_white_gaps("RdBu_r"), vmin=-limit, vmax=limit)


@torch.no_grad()
def _feature_maps(
    figure: Figure, upper: SubplotSpec, lower: SubplotSpec, network: nn.Sequential, digits: Digits
) -> None:
    image = digits.test_images[:1]  # [1, 1, 8, 8]
    first = network[:2](image)  # [1, 16, 8, 8], after the first ReLU
    second = network[2:5](first)  # [1, 32, 4, 4], after the second ReLU
    source, maps = upper.subgridspec(1, 2, width_ratios=[1, 4], wspace=0.04)
    _show(_panel(figure, source, "A digit"), image[0, 0].cpu())
    axes = _panel(figure, maps, f"What the {first.shape[1]} filters see in it")
    axes.imshow(_tiles(first[0].cpu(), columns=8), cmap=_with_white_gaps("magma"))
    axes = _panel(figure, lower, f"What the {second.shape[1]} filters of the second convolution make of that")
    axes.imshow(_tiles(second[0].cpu(), columns=11), cmap=_with_white_gaps("magma"))


def _mistakes(figure: Figure, place: SubplotSpec, ours: Training, digits: Digits) -> None:
    labels = digits.test_labels.cpu()
    wrong = (ours.predictions != labels).nonzero().flatten().tolist()
    shown = wrong[:MOST_MISTAKES]
    count = f"{len(wrong)} of {len(labels)}" + (f", here the first {len(shown)}" if len(wrong) > len(shown) else "")
    heading, body = place.subgridspec(2, 1, height_ratios=[1, 30], hspace=0.2)
    _panel(figure, heading, f"The test digits that fastconv's network got wrong: {count}")
    cells = body.subgridspec(2, MOST_MISTAKES // 2, hspace=0.35, wspace=0.1)
    for cell, index in zip(cells, shown, strict=False):
        axes = _panel(figure, cell, "")
        _show(axes, digits.test_images[index, 0].cpu())
        axes.set_title(f"{labels[index].item()}, read as {ours.predictions[index].item()}", fontsize=8, pad=3)


def _panel(figure: Figure, place: SubplotSpec, heading: str) -> Axes:
    axes = figure.add_subplot(place)
    axes.axis("off")
    axes.set_title(heading, **HEADING)
    return axes


def _show(axes: Axes, image: torch.Tensor) -> None:
    axes.imshow(image.numpy(), cmap="gray_r")


def _tiles(images: torch.Tensor, columns: int) -> np.ndarray:
    """[N, H, W] images in rows of `columns`, NaN between them; every pixel is drawn TILE_SCALE wide to make the gaps thin."""
    count, height, width = images.shape
    gap = max(2, height * TILE_SCALE // 12)
    tall, wide = height * TILE_SCALE + gap, width * TILE_SCALE + gap
    rows = -(-count // columns)
    sheet = np.full((rows * tall - gap, columns * wide - gap), np.nan, dtype=np.float32)
    for index, image in enumerate(images.numpy()):
        top, left = index // columns * tall, index % columns * wide
        scaled = image.repeat(TILE_SCALE, axis=0).repeat(TILE_SCALE, axis=1)
        sheet[top : top + tall - gap, left : left + wide - gap] = scaled
    return sheet


def _with_white_gaps(name: str) -> Colormap:
    return matplotlib.colormaps[name].with_extremes(bad="white")
