"""Every example runs, with the hand-written kernels, for a few steps."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
QUICK = {
    "convolution_arithmetic.py": (["--steps", "2"], "24 sizes agree"),
    "dcgan.py": (["--steps", "2", "--batch", "4", "--width", "4"], "a drawn digit"),
    "matched_filter.py": (["--steps", "2", "--scenes", "4"], "found 20 of 20 shapes"),
    "transfer_learning.py": (["--steps", "3"], "only the head trained"),
    "unet_segmentation.py": (["--steps", "2", "--batch", "2", "--width", "2"], "intersection over union"),
}


def run(name: str, *arguments: str) -> str:
    # One thread: parallel loops inside layers this small cost more than they bring.
    environment = {**os.environ, "COLUMNS": "150", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd=EXAMPLES.parent)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_every_example_is_run_here():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(QUICK)


@pytest.mark.parametrize("name", QUICK)
def test_example_runs_on_the_hand_written_kernels(name):
    arguments, words = QUICK[name]
    assert words in run(name, "--backend", "cuda", *arguments)


def test_unet_learns_to_tell_the_shapes_apart():
    printed = run("unet_segmentation.py", "--backend", "aten", "--steps", "60")
    losses = [float(number) for number in re.findall(r"loss ([\d.]+)", printed)]
    assert losses[-1] < losses[0] / 2


def test_matched_filter_learns_the_shape_that_scores_best():
    printed = run("matched_filter.py", "--backend", "aten", "--scenes", "2")
    (likeness,) = re.findall(r"like the ring to (-?[\d.]+)", printed)
    assert float(likeness) > 0.9
