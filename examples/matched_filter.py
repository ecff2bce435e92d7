"""Finding shapes in noisy scenes with a bank of matched filters, and learning a filter from where it fits best.

A matched filter is the shape that is looked for, without its mean and of length one. Its product with a noisy scene is largest
where the shape is. fastconv.conv2d_global_max scans all filters over the scene and keeps the best score of each and its place:
the score maps, which nobody looks at, are never kept. Gradients flow through the best scores, so a filter that starts as noise
learns the shape that half of the scenes hold.

    python examples/matched_filter.py --backend cuda
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

import fastconv

SIZE = 9  # of a shape
SHAPES = ("cross", "ring", "square", "stripes", "wedge")


def shapes() -> torch.Tensor:
    """[5, 1, 9, 9], ones and zeros."""
    row, column = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    middle = SIZE // 2
    distance = ((row - middle) ** 2 + (column - middle) ** 2).float().sqrt()
    border = torch.minimum(torch.minimum(row, column), torch.minimum(SIZE - 1 - row, SIZE - 1 - column))
    drawn = [
        ((row - middle).abs() <= 1) | ((column - middle).abs() <= 1),
        (distance >= 2.5) & (distance <= 4.2),
        border <= 1,
        row % 3 == 0,
        column <= row,
    ]
    return torch.stack(drawn).float().unsqueeze(1)


def matched(filters: torch.Tensor) -> torch.Tensor:
    """Without their mean and of length one: flat light changes no score."""
    filters = filters - filters.mean((1, 2, 3), keepdim=True)
    return filters / filters.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def scene(size: int, noise: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A scene [1, size, size] with each shape once, none over another, and their places [5], row * width + column."""
    image = torch.randn(1, size, size, generator=generator) * noise
    cells = size // (SIZE + 2)
    order = torch.randperm(cells * cells, generator=generator)[: len(SHAPES)]
    places = []
    for shape, cell in zip(shapes(), order.tolist(), strict=True):
        shift = torch.randint(0, 3, (2,), generator=generator)
        top, left = (cell // cells * (SIZE + 2) + shift[0]).item(), (cell % cells * (SIZE + 2) + shift[1]).item()
        image[:, top : top + SIZE, left : left + SIZE] += shape
        places.append(top * (size - SIZE + 1) + left)
    return image, torch.tensor(places)


def detect(scenes: int, size: int, noise: float, backend: str, generator: torch.Generator) -> Table:
    """One row a shape: how often it was found where it was drawn."""
    images, places = zip(*(scene(size, noise, generator) for _ in range(scenes)), strict=True)
    scores, found = fastconv.conv2d_global_max(
        torch.stack(images), matched(shapes()), return_indices=True, backend=backend
    )  # [N, 5] both
    hits = found == torch.stack(places)
    table = Table(
        "shape", "found", "mean score", "first scene", title=f"{scenes} scenes of {size}x{size}, noise {noise}"
    )
    width = size - SIZE + 1
    for number, name in enumerate(SHAPES):
        row, column = divmod(found[0, number].item(), width)
        share = hits[:, number].float().mean().item()
        table.add_row(name, f"{share:.0%}", f"{scores[:, number].mean().item():.2f}", f"row {row}, column {column}")
    table.caption = f"found {hits.sum().item()} of {hits.numel()} shapes"
    return table


def learn(steps: int, size: int, noise: float, backend: str, generator: torch.Generator) -> float:
    """Learns to tell scenes with a ring from scenes without; returns the likeness of filter and ring, 1 at most."""
    ring = shapes()[SHAPES.index("ring")]
    detector = fastconv.nn.Conv2dGlobalMax(1, 1, SIZE, backend=backend)
    optimizer = torch.optim.Adam(detector.parameters(), lr=0.05)
    for _ in range(steps):
        has_ring = torch.arange(32) % 2 == 0
        images = torch.randn(32, 1, size, size, generator=generator) * noise
        for number in has_ring.nonzero().flatten().tolist():
            top, left = torch.randint(0, size - SIZE + 1, (2,), generator=generator).tolist()
            images[number, :, top : top + SIZE, left : left + SIZE] += ring
        loss = F.binary_cross_entropy_with_logits(detector(images).squeeze(1), has_ring.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (matched(detector.weight.detach()) * matched(ring.unsqueeze(0))).sum().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="auto", help="auto, cuda, triton or aten")
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--size", type=int, default=64, help="height and width of a scene, 33 or more")
    parser.add_argument("--noise", type=float, default=0.4, help="standard deviation; a shape is 1 high")
    parser.add_argument("--steps", type=int, default=200, help="of learning a filter")
    options = parser.parse_args()
    if options.size < 3 * (SIZE + 2):
        parser.error(f"--size is {options.size}, but must be {3 * (SIZE + 2)} or more to hold five shapes")
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    console = Console()
    console.print(detect(options.scenes, options.size, options.noise, options.backend, generator))
    likeness = learn(options.steps, 24, options.noise, options.backend, generator)
    console.print(f"a filter learned from {options.steps} steps is like the ring to {likeness:.2f}")


if __name__ == "__main__":
    main()
