"""The demo: one short run end to end, its verdict, and that its seed decides everything."""

from __future__ import annotations

import dataclasses
import sys

import matplotlib.image
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from fastconv.cli import app
from fastconv.demo import comparison, network
from fastconv.demo.comparison import Comparison, compare
from fastconv.demo.digits import Digits
from fastconv.demo.training import steps, train


@pytest.fixture(scope="module")
def digits():
    return Digits.load()


def nothing(*_: object) -> None:
    pass


def test_digits_are_split_without_overlap_and_with_every_class(digits):
    assert digits.train_images.shape == (1437, 1, 8, 8)
    assert digits.test_images.shape == (360, 1, 8, 8)
    assert digits.test_labels.bincount(minlength=10).min() >= 34
    assert (digits.train_images.min(), digits.train_images.max()) == (0, 1)


def test_both_networks_begin_with_the_same_weights():
    import fastconv.nn

    ours, theirs = network.build(fastconv.nn, 3, backend="aten").state_dict(), network.build(nn, 3).state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_training_is_repeated_exactly_by_its_seed(digits):
    few = dataclasses.replace(digits, train_images=digits.train_images[:128], train_labels=digits.train_labels[:128])
    first, second, other = (train(network.build(nn, seed), few, 2, seed, nothing) for seed in (0, 0, 1))
    assert first.losses == second.losses
    assert first.losses != other.losses


def test_emulated_kernels_follow_pytorchs_loss_curve(digits):
    few = dataclasses.replace(digits, train_images=digits.train_images[:512], train_labels=digits.train_labels[:512])
    seen = []
    compared = compare(few, "cuda", 2, 0, lambda name, step, loss: seen.append((name, step)))
    assert compared.largest_difference < 1e-4
    assert compared.ours.losses[-1] < compared.ours.losses[0]
    total = steps(few, 2)
    assert seen[total - 1] == ("torch.nn", total)
    assert seen[-1] == ("fastconv", total)
    assert {call.chosen.backend for call in compared.explanation} == {"cuda"}
    assert {call.layer for call in compared.explanation if not call.is_backward} == {"0", "2", "3", "5"}


def test_demo_reaches_its_accuracy_and_draws_its_picture(tmp_path):
    picture = tmp_path / "folder" / "picture.png"
    result = CliRunner().invoke(app, ["demo", "--backend", "aten", "--output", str(picture)], env={"COLUMNS": "150"})
    assert result.exit_code == 0, result.output
    for words in ("test digits right", "largest difference", "0: Conv2d", "conv2d_wgrad", "training time"):
        assert words in result.output
    height, width, _ = matplotlib.image.imread(picture).shape
    assert width > height > 500


def test_demo_fails_when_the_network_has_not_learned(tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "REQUIRED_ACCURACY", 1.01)
    result = CliRunner().invoke(
        app, ["demo", "--backend", "aten", "--epochs", "1", "--output", str(tmp_path / "a.png")]
    )
    assert result.exit_code == 1


def test_accuracy_of_either_network_decides(digits):
    good = train(network.build(nn, 0), digits, 1, 0, nothing)
    good = dataclasses.replace(good, accuracy=0.98)
    bad = dataclasses.replace(good, accuracy=0.96)
    assert Comparison(None, good, good, None).good
    assert not Comparison(None, bad, good, None).good
    assert not Comparison(None, good, bad, None).good


def test_missing_library_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    for name in [name for name in sys.modules if name.startswith("fastconv.demo.")]:
        monkeypatch.delitem(sys.modules, name)
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 1
    assert "pip install 'fastconv[demo]'" in result.output
