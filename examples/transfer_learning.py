"""Transfer learning: a network that has learned the digits 0 to 4 lends its frozen features to a new head for 5 to 9.

The network is plain torch.nn; `fastconv.convert` replaces its layers in place after pretraining, and weights, names and
frozen parameters stay what they were.

    python examples/transfer_learning.py
    python examples/transfer_learning.py --backend cuda --steps 5
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import fastconv

FEATURES = 64


def backbone() -> nn.Sequential:
    """[N, 1, 8, 8] -> [N, 64]."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, FEATURES, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
    )


def train(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, steps: int) -> None:
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=5e-3)
    for _ in range(steps):
        batch = torch.randint(len(images), (64,))
        loss = F.cross_entropy(network(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def accuracy(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    return (network(images).argmax(1) == labels).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="auto", choices=["auto", "cuda", "triton", "aten"])
    parser.add_argument("--steps", type=int, default=300, help="of training, before and after the transfer")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    scans = load_digits()
    images = torch.as_tensor(scans.images, dtype=torch.float32, device=device).unsqueeze(1) / 16  # [1797, 1, 8, 8]
    labels = torch.as_tensor(scans.target, device=device).long()
    low, high = labels < 5, labels >= 5

    features = backbone().to(device)
    network = nn.Sequential(features, nn.Linear(FEATURES, 5).to(device))
    train(network, images[low], labels[low], arguments.steps)
    print(f"digits 0 to 4, all layers trained: {accuracy(network, images[low], labels[low]):.1%} right")

    for parameter in features.parameters():
        parameter.requires_grad_(False)
    network = nn.Sequential(features, nn.Linear(FEATURES, 5).to(device))
    print(fastconv.convert(network, backend=arguments.backend))
    before = {name: value.clone() for name, value in features.state_dict().items()}
    images, labels = images[high], labels[high] - 5
    train(network, images[:-200], labels[:-200], arguments.steps)
    for name, value in features.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} was frozen and has changed"
    right = accuracy(network, images[-200:], labels[-200:])
    print(f"digits 5 to 9, only the head trained: {right:.1%} of digits it has not seen right")


if __name__ == "__main__":
    main()
