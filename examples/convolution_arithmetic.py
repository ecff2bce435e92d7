"""Output sizes of convolution and transposed convolution, by formula and by the ops themselves.

A convolution gives   P = floor((H + 2 * padding - dilation * (R - 1) - 1) / stride) + 1,
its transposed one    H = (P - 1) * stride - 2 * padding + dilation * (R - 1) + output_padding + 1.

The stride loses up to stride - 1 rows of the input, so several H lead to the same P; output_padding says which H to go back to.
For an input of every size the table has a row a setting, and each number is checked against the op's output.

    python examples/convolution_arithmetic.py --backend cuda
"""

from __future__ import annotations

import argparse

import torch
from rich.console import Console
from rich.table import Table

import fastconv

# What it is called, kernel, stride, padding, dilation.
SETTINGS = [
    ("no padding", 3, 1, 0, 1),
    ("same size", 3, 1, 1, 1),
    ("full padding", 3, 1, 2, 1),
    ("even kernel", 4, 1, 1, 1),
    ("halving", 2, 2, 0, 1),
    ("halving, overlapping", 3, 2, 1, 1),
    ("halving, DCGAN's", 4, 2, 1, 1),
    ("thirds", 3, 3, 0, 1),
    ("dilated", 3, 1, 2, 2),
    ("dilated and strided", 3, 2, 2, 2),
    ("pointwise", 1, 1, 0, 1),
    ("pointwise, strided", 1, 2, 0, 1),
]


def convolved(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def transposed(size: int, kernel: int, stride: int, padding: int, dilation: int, output_padding: int) -> int:
    return (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1


def check(size: int, setting: tuple[int, int, int, int], backend: str) -> tuple[int, int]:
    """Runs both ops on an input of that size; returns the output size and the output_padding that leads back."""
    kernel, stride, padding, dilation = setting
    x = torch.randn(1, 2, size, size, dtype=torch.float64)  # [N, C, H, W]
    w = torch.randn(3, 2, kernel, kernel, dtype=torch.float64)  # [K, C, R, S]
    options = {"stride": stride, "padding": padding, "dilation": dilation, "backend": backend}
    y = fastconv.conv2d(x, w, **options)
    output = convolved(size, *setting)
    assert y.shape == (1, 3, output, output), (setting, y.shape)
    lost = size - transposed(output, *setting, output_padding=0)
    back = fastconv.conv_transpose2d(y, w, output_padding=lost, **options)
    assert back.shape == x.shape, (setting, back.shape)
    # The two are each other's transpose: <conv(x), y> = <x, conv_transpose(y)>.
    torch.testing.assert_close((y * y).sum(), (x * back).sum())
    return output, lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="auto", choices=["auto", "cuda", "triton", "aten"])
    parser.add_argument("--steps", type=int, default=6, help="how many input sizes, beginning with 8")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    sizes = range(8, 8 + arguments.steps)
    table = Table(title="H -> P, and the output_padding that leads from P back to H", title_justify="left")
    for column in ("setting", "kernel", "stride", "padding", "dilation"):
        table.add_column(column, justify="left" if column == "setting" else "right")
    for size in sizes:
        table.add_column(f"H={size}", justify="right")
    for name, *numbers in SETTINGS:
        cells = []
        for size in sizes:
            output, lost = check(size, tuple(numbers), arguments.backend)
            cells.append(f"{output} +{lost}" if lost else str(output))
        table.add_row(name, *map(str, numbers), *cells)
    Console().print(table)
    print(f"{len(SETTINGS) * len(sizes)} sizes agree with the ops, there and back.")


if __name__ == "__main__":
    main()
