"""The data of the demo: 1,797 handwritten digits, scanned, 8x8 pixels, that come with scikit-learn."""

from __future__ import annotations

import dataclasses

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

TEST_DIGITS = 360


@dataclasses.dataclass(frozen=True)
class Digits:
    train_images: torch.Tensor  # [1437, 1, 8, 8], float32 in 0..1
    train_labels: torch.Tensor  # [1437], int64
    test_images: torch.Tensor  # [360, 1, 8, 8]
    test_labels: torch.Tensor  # [360]

    @classmethod
    def load(cls) -> Digits:
        """Always the same split, with every digit equally often in both parts."""
        scans = load_digits()
        images = scans.images[:, None].astype("float32") / 16
        parts = train_test_split(images, scans.target, test_size=TEST_DIGITS, stratify=scans.target, random_state=0)
        train_images, test_images, train_labels, test_labels = (torch.as_tensor(part) for part in parts)
        return cls(train_images, train_labels.long(), test_images, test_labels.long())

    def to(self, device: torch.device) -> Digits:
        return Digits(*(getattr(self, field.name).to(device) for field in dataclasses.fields(self)))
