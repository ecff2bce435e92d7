"""A small U-Net that finds discs and crosses in noise: convolutions, max pooling, and transposed convolutions to go back up.

python examples/unet_segmentation.py
python examples/unet_segmentation.py --backend cuda --steps 5
"""

from __future__ import annotations

import argparse

import torch
from torch import nn
from torch.nn import functional as F

import fastconv

CLASSES = ("background", "disc", "cross")
SIZE = 32


def scene(batch: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy images [N, 1, 32, 32] with a disc and a cross each, and the class of every pixel [N, 32, 32]."""
    rows = torch.arange(SIZE).view(1, SIZE, 1)
    columns = torch.arange(SIZE).view(1, 1, SIZE)
    labels = torch.zeros(batch, SIZE, SIZE, dtype=torch.int64)
    for shape in (1, 2):
        row, column = torch.randint(6, SIZE - 6, (2, batch, 1, 1), generator=generator)
        radius = torch.randint(4, 9, (batch, 1, 1), generator=generator)
        down, right = (rows - row).abs(), (columns - column).abs()
        disc = down**2 + right**2 <= radius**2
        cross = (torch.minimum(down, right) <= 1) & (torch.maximum(down, right) <= radius)
        inside = disc if shape == 1 else cross
        labels[inside] = shape
    brightness = torch.tensor([0.0, 1.0, 1.0])[labels]
    noise = 0.3 * torch.randn(batch, SIZE, SIZE, generator=generator)
    return (brightness + noise).unsqueeze(1), labels


class UNet(nn.Module):
    """Two levels down, two levels up, each level handing its features across."""

    def __init__(self, width: int, backend: str) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(
                fastconv.nn.Conv2d(inputs, outputs, 3, padding=1, backend=backend),
                nn.ReLU(),
                fastconv.nn.Conv2d(outputs, outputs, 3, padding=1, backend=backend),
                nn.ReLU(),
            )

        def up(inputs: int, outputs: int) -> nn.Module:
            return fastconv.nn.ConvTranspose2d(inputs, outputs, 2, stride=2, backend=backend)

        self.pool = fastconv.nn.MaxPool2d(2, backend=backend)
        self.fine, self.middle, self.coarse = block(1, width), block(width, 2 * width), block(2 * width, 4 * width)
        self.up_to_middle, self.up_to_fine = up(4 * width, 2 * width), up(2 * width, width)
        self.merge_middle, self.merge_fine = block(4 * width, 2 * width), block(2 * width, width)
        self.head = fastconv.nn.Conv2d(width, len(CLASSES), 1, backend=backend)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, 1, H, W] -> [N, classes, H, W]
        fine = self.fine(x)
        middle = self.middle(self.pool(fine))
        coarse = self.coarse(self.pool(middle))
        middle = self.merge_middle(torch.cat([middle, self.up_to_middle(coarse)], dim=1))
        fine = self.merge_fine(torch.cat([fine, self.up_to_fine(middle)], dim=1))
        return self.head(fine)


def intersection_over_union(predicted: torch.Tensor, labels: torch.Tensor) -> list[float]:
    scores = []
    for index in range(len(CLASSES)):
        both = ((predicted == index) & (labels == index)).sum()
        either = ((predicted == index) | (labels == index)).sum()
        scores.append((both / either.clamp(min=1)).item())
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="auto", choices=["auto", "cuda", "triton", "aten"])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--width", type=int, default=8, help="channels of the finest level")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    network = UNet(arguments.width, arguments.backend).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for step in range(1, arguments.steps + 1):
        images, labels = (tensor.to(device) for tensor in scene(arguments.batch, generator))
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == 1 or step % 50 == 0 or step == arguments.steps:
            print(f"step {step:4d}  loss {loss.item():.4f}", flush=True)
    images, labels = (tensor.to(device) for tensor in scene(4 * arguments.batch, generator))
    with torch.no_grad():
        scores = intersection_over_union(network(images).argmax(1), labels)
    for name, score in zip(CLASSES, scores, strict=True):
        print(f"{name:<12} intersection over union {score:.3f}")


if __name__ == "__main__":
    main()
