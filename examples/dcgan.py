"""A small DCGAN on scanned digits: transposed convolutions draw, convolutions judge.

The networks are plain torch.nn; `fastconv.intercept` sends their convolutions to fastconv while they train.

    python examples/dcgan.py --output digits.png
    python examples/dcgan.py --backend cuda --steps 5
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import fastconv

NOISE = 16


def generator_network(width: int) -> nn.Sequential:
    """[N, 16, 1, 1] -> [N, 1, 8, 8] in 0..1."""
    return nn.Sequential(
        nn.ConvTranspose2d(NOISE, 2 * width, 2, bias=False),  # [N, 2 * width, 2, 2]
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False),  # [N, width, 4, 4]
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1),  # [N, 1, 8, 8]
        nn.Sigmoid(),
    )


def discriminator_network(width: int) -> nn.Sequential:
    """[N, 1, 8, 8] -> [N, 1], larger for images that look scanned."""
    return nn.Sequential(
        nn.Conv2d(1, width, 4, stride=2, padding=1),  # [N, width, 4, 4]
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),  # [N, 2 * width, 2, 2]
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 1, 2),  # [N, 1, 1, 1]
        nn.Flatten(),
    )


def judge(logits: torch.Tensor, real: bool) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="auto", choices=["auto", "cuda", "triton", "aten"])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=32, help="channels of the largest feature maps")
    parser.add_argument("--output", type=Path, help="where to write a PNG of 64 drawn digits")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    scans = (
        torch.as_tensor(load_digits().images, dtype=torch.float32, device=device).unsqueeze(1) / 16
    )  # [1797, 1, 8, 8]
    draw, discriminate = (
        generator_network(arguments.width).to(device),
        discriminator_network(arguments.width).to(device),
    )
    drawing = torch.optim.Adam(draw.parameters(), lr=1e-3, betas=(0.5, 0.999))
    judging = torch.optim.Adam(discriminate.parameters(), lr=1e-3, betas=(0.5, 0.999))

    def noise(count: int) -> torch.Tensor:
        return torch.randn(count, NOISE, 1, 1, device=device)

    with fastconv.intercept(backend=arguments.backend):
        for step in range(1, arguments.steps + 1):
            real = scans[torch.randint(len(scans), (arguments.batch,))]
            fake = draw(noise(arguments.batch))
            judging_loss = judge(discriminate(real), True) + judge(discriminate(fake.detach()), False)
            judging.zero_grad()
            judging_loss.backward()
            judging.step()
            drawing_loss = judge(discriminate(fake), True)
            drawing.zero_grad()
            drawing_loss.backward()
            drawing.step()
            if step == 1 or step % 250 == 0 or step == arguments.steps:
                losses = f"judging {judging_loss.item():.3f}  drawing {drawing_loss.item():.3f}"
                print(f"step {step:5d}  {losses}", flush=True)
        with torch.no_grad():
            drawn = draw(noise(64)).cpu()  # [64, 1, 8, 8]
    distance = torch.cdist(drawn.flatten(1), scans.cpu().flatten(1)).amin(1)
    print(f"a drawn digit is on average {distance.mean():.2f} away from the nearest scan")
    if arguments.output:
        from matplotlib import pyplot as plt

        sheet = F.pad(drawn, (1, 1, 1, 1)).view(8, 8, 10, 10).transpose(1, 2).reshape(80, 80)
        plt.imsave(arguments.output, sheet.repeat_interleave(6, 0).repeat_interleave(6, 1), cmap="gray")
        print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
