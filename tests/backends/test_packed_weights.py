"""Repacked weights are kept while they do not change, and no longer: when they are made, made anew, and go."""

from __future__ import annotations

import copy
import gc
import io
import pickle

import pytest
import torch
import torch.nn.functional as F

import fastconv
from fastconv import emulator
from fastconv.backends import packed_weights

pytestmark = pytest.mark.usefixtures("greedy")


def half(*sizes: int) -> torch.Tensor:
    return torch.randint(-3, 4, sizes).half()


def convolve(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return fastconv.conv2d(x, w, padding=1, backend="cuda")


def expected(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x.double(), w.detach().double(), padding=1).half()


def launches(x: torch.Tensor, w: torch.Tensor) -> list[str]:
    """The kernels that a call runs; its result is right."""
    with emulator.count() as counters, torch.no_grad():
        y = convolve(x, w)
    assert torch.equal(y, expected(x, w))
    return [launch.kernel for launch in counters.launches]


X = (1, 16, 6, 6)
W = (16, 16, 3, 3)


def test_weights_are_repacked_once_from_the_second_call_on() -> None:
    x, w = half(*X), half(*W)
    assert "repack_weights" in launches(x, w)
    assert packed_weights.kept_bytes() == 0, "one call is no reason to keep anything"
    assert "repack_weights" in launches(x, w)
    assert packed_weights.kept_bytes() == w.numel() * 2
    for size in (6, 9):
        assert "repack_weights" not in launches(half(1, 16, size, size), w)
    assert packed_weights.kept_bytes() == w.numel() * 2


CHANGES = {
    "in place": lambda w: w.add_(1),
    "a part of it": lambda w: w[3].zero_(),
    "copied into": lambda w: w.copy_(half(*W)),
    "data swapped": lambda w: setattr(w, "data", half(*W)),
    "set to another storage": lambda w: w.set_(half(*W)),
    "through a detached alias": lambda w: w.detach().mul_(2),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_weights_are_repacked(name: str) -> None:
    x, w = half(*X), half(*W)
    for _ in range(3):
        launches(x, w)
    assert packed_weights.kept_bytes()
    CHANGES[name](w)
    assert "repack_weights" in launches(x, w)
    assert packed_weights.kept_bytes() == 0, "what belonged to the old values is still there"
    launches(x, w)
    assert "repack_weights" not in launches(x, w)


def test_optimizer_steps_are_seen_and_training_keeps_nothing() -> None:
    layer = fastconv.nn.Conv2d(16, 16, 3, padding=1, backend="cuda").half()
    x = half(*X)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-3)
    with torch.no_grad():
        for _ in range(3):
            layer(x)
    assert packed_weights.kept_bytes()
    for _ in range(3):
        layer(x.requires_grad_()).square().sum().backward()
        assert packed_weights.kept_bytes() == 0
        optimizer.step()
        optimizer.zero_grad()
    for _ in range(3):
        with torch.no_grad():
            y = layer(x)
        wanted = F.conv2d(x.float(), layer.weight.float(), layer.bias.float(), padding=1)
        torch.testing.assert_close(y.float(), wanted, rtol=2e-3, atol=2e-2)


@pytest.mark.parametrize("alias", [False, True], ids=["the parameter", "an alias of it"])
def test_a_fused_optimizer_which_counts_no_versions_is_seen(alias: bool) -> None:
    x, other = half(*X), half(*W)
    parameter = torch.nn.Parameter(half(*W).float())
    w = parameter.detach() if alias else parameter
    optimizer = torch.optim.SGD([parameter], lr=1, fused=True)
    for _ in range(3):
        launches(x, other)
        with torch.no_grad():
            convolve(x.float(), w)
    kept = packed_weights.kept_bytes()
    parameter.grad = torch.ones_like(parameter)
    version = w._version
    optimizer.step()
    assert w._version == version, "this optimizer counts versions; the test is of one that does not"
    assert other.numel() * 2 == packed_weights.kept_bytes() < kept, "what else is kept is not the optimizer's"
    with torch.no_grad():
        assert torch.equal(convolve(x.float(), w).double(), F.conv2d(x.double(), w.double(), padding=1))


def test_a_dead_tensor_takes_its_packed_weights_along() -> None:
    x, w = half(*X), half(*W)
    for _ in range(3):
        launches(x, w)
    assert packed_weights.kept_bytes()
    del w
    gc.collect()
    assert packed_weights.kept_bytes() == 0


def test_each_tensor_has_its_own_even_where_an_address_comes_again() -> None:
    x = half(*X)
    for _ in range(6):
        w = half(*W)  # as a rule where the last one was
        for _ in range(3):
            launches(x, w)
        del w


def test_a_swapped_tensor_takes_its_packed_weights_along() -> None:
    x, one, other = half(*X), torch.nn.Parameter(half(*W)), torch.nn.Parameter(half(*W))
    for _ in range(3):
        launches(x, one)
    torch.utils.swap_tensors(one, other)
    assert "repack_weights" in launches(x, one), "these were the other's, which were never packed"
    assert "repack_weights" not in launches(x, other)
    for _ in range(3):
        launches(x, one)
    torch.utils.swap_tensors(one, other)
    for w in (one, other):
        assert "repack_weights" not in launches(x, w)


@pytest.mark.parametrize("swap", [False, True], ids=["data assigned", "tensors swapped"])
def test_a_module_that_was_used_can_be_converted_in_either_of_pytorchs_ways(swap: bool) -> None:
    layer = fastconv.nn.Conv2d(16, 16, 3, padding=1, backend="cuda").half()
    x = half(*X)
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(swap)
    try:
        with torch.no_grad():
            for dtype in (torch.half, torch.bfloat16, torch.half):
                layer.to(dtype).requires_grad_(False)
                for _ in range(3):
                    y = layer(x.to(dtype))
                wanted = F.conv2d(x.float(), layer.weight.float(), layer.bias.float(), padding=1)
                torch.testing.assert_close(y.float(), wanted, rtol=2e-2, atol=2e-2)
                layer.weight.neg_()
            layer.load_state_dict({name: 2 * value for name, value in layer.state_dict().items()})
            wanted = F.conv2d(x.float(), layer.weight.float(), layer.bias.float(), padding=1)
            torch.testing.assert_close(layer(x).float(), wanted, rtol=2e-2, atol=2e-2)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


def test_a_new_alias_at_an_old_address_is_not_taken_for_the_one_that_was_there() -> None:
    """`w.data` has a version counter of its own, which stands at 0 again, whatever was written to w meanwhile."""
    x, w = half(*X), half(*W)
    for _ in range(8):
        assert w.data._version == 0
        for _ in range(3):
            convolve(x, w.data)
        launches(x, w.data)
        w.add_(1)
    v = half(*W)
    for _ in range(8):
        v = v.data
        v += 1
        launches(x, v)


def test_a_kept_weight_is_copied_and_saved_as_any_other() -> None:
    x = half(*X)
    for w in (torch.nn.Parameter(half(*W)), half(*W)):
        for name in ("plain", "with an attribute"):
            if name != "plain":
                w.scale = 3
            for _ in range(3):
                launches(x, w)
            assert packed_weights.kept_bytes()
            file = io.BytesIO()
            torch.save(w, file)
            assert b"fastconv" not in file.getvalue()
            file.seek(0)
            back = torch.load(file, weights_only=True)
            assert getattr(back, "scale", None) == getattr(w, "scale", None)
            for one in (back, copy.deepcopy(w), pickle.loads(pickle.dumps(w))):
                assert type(one) is type(w)
                assert torch.equal(one, w)
                launches(x, one)
                one.scale = 4
            assert vars(w) == ({} if name == "plain" else {"scale": 3})


def test_transposed_convolution_has_a_packing_of_its_own() -> None:
    x, w = half(*X), half(*W)
    for _ in range(3):
        y = fastconv.conv_transpose2d(x, w, stride=2, backend="cuda")
        assert torch.equal(y.double(), F.conv_transpose2d(x.double(), w.double(), stride=2))
        assert torch.equal(convolve(x, w), expected(x, w))
    assert packed_weights.kept_bytes() == 2 * w.numel() * 2


def test_inference_tensors_have_no_version_and_are_not_kept() -> None:
    with torch.inference_mode():
        x, w = half(*X), half(*W)
        for _ in range(3):
            assert torch.equal(convolve(x, w), expected(x, w))
    assert packed_weights.kept_bytes() == 0


def test_all_together_are_bounded_and_the_longest_unused_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weights = half(*X), [half(*W) for _ in range(4)]
    size = weights[0].numel() * 2
    monkeypatch.setattr(packed_weights, "MOST_BYTES", 2 * size)
    for w in weights:
        for _ in range(3):
            launches(x, w)
        assert packed_weights.kept_bytes() <= 2 * size
    assert "repack_weights" not in launches(x, weights[3])
    assert "repack_weights" not in launches(x, weights[2])
    assert "repack_weights" in launches(x, weights[0])


def test_a_compiled_module_in_check_mode_reads_what_the_fast_one_kept() -> None:
    x, w = half(*X), half(*W)
    for _ in range(3):
        convolve(x, w)
    assert packed_weights.kept_bytes()
    with emulator.check():
        assert torch.equal(convolve(x, w), expected(x, w))


def test_the_core_refuses_what_does_not_fit() -> None:
    module = emulator.module()
    dense = [list(W), [144, 9, 3, 1]]
    last = [list(W), [144, 1, 48, 16]]
    image = [list(X), [576, 1, 96, 16]]
    common = {"conv_pass": "fprop", "dtype": "float16", "x": image, "y": image, "padding": (1, 1, 1, 1)}
    in_place = module.Plan(module.ConvProblem(w=last, **common), "mma_fprop", "64x64x64_s4_w4")
    packs = module.Plan(module.ConvProblem(w=dense, **common), "mma_fprop", "64x64x64_s4_w4")
    assert (in_place.packed_bytes, packs.packed_bytes) == (0, 16 * 16 * 9 * 2)
    assert packs.packed_workspace_bytes < packs.workspace_bytes
    with pytest.raises(ValueError, match="reads w as it is"):
        in_place.pack(16, 16)
    with pytest.raises(ValueError, match="reads w as it is"):
        in_place.launch((16, 16, 16, 0, 0), 16, packed=16)
    with pytest.raises(ValueError, match="pointer of packed is 0"):
        packs.pack(16, 0)
    with pytest.raises(ValueError, match="pointer of packed is 20"):
        packs.launch((16, 16, 16, 0, 0), 16, packed=20)
