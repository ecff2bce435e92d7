"""Workspace that cannot be had: fewer splits, fewer images at a time or another kernel."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fastconv import dispatch, emulator
from fastconv.backends import cuda, packed_weights

ops = torch.ops.fastconv
GEOMETRY = (1, 1), (1, 1, 1, 1), (1, 1), 1, "zeros", 0.0


class Memory:
    """An allocator with so many bytes."""

    def __init__(self, free: int):
        self.free, self.asked = free, []

    def __call__(self, size: int, device: torch.device) -> torch.Tensor:
        self.asked.append(size)
        if size > self.free:
            raise torch.OutOfMemoryError(f"tried to allocate {size} bytes of {self.free}")
        return torch.empty(size, dtype=torch.uint8, device=device)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, greedy: None) -> Memory:
    memory = Memory(0)
    monkeypatch.setattr(cuda, "_allocate", memory)
    return memory


def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    """x and dy of a convolution with few outputs of long sums, which is split."""
    x, dy = torch.randint(-2, 3, (4, 64, 16, 16)).half(), torch.randint(-2, 3, (4, 64, 16, 16)).half()
    return (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, dy))


def wgrad(x: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
    return ops.conv2d_wgrad(dy, x, [64, 64, 3, 3], *GEOMETRY, False, "cuda")[0]


def test_fewer_splits_where_memory_is_short(memory: Memory) -> None:
    x, dy = tensors()
    wanted = torch.nn.grad.conv2d_weight(x.double(), (64, 64, 3, 3), dy.double(), padding=1).half()
    memory.free = 1 << 40
    ran = []
    with dispatch.listening(lambda choice, plan: ran.append(plan)):
        assert torch.equal(wgrad(x, dy), wanted)
    most = ran[0].workspace_bytes
    assert ran[0].candidate.details["splits"] > 1
    memory.free = most // 2
    with pytest.warns(RuntimeWarning, match="runs in its place"):
        assert torch.equal(wgrad(x, dy), wanted)
    assert memory.asked[-2] == most
    assert 0 < memory.asked[-1] <= most // 2


def test_no_memory_at_all_is_served_by_a_kernel_that_needs_none(memory: Memory) -> None:
    x, dy = tensors()
    wanted = torch.nn.grad.conv2d_weight(x.double(), (64, 64, 3, 3), dy.double(), padding=1).half()
    with pytest.warns(RuntimeWarning, match="runs in its place"):
        assert torch.equal(wgrad(x, dy), wanted)
    assert memory.asked[-1] > 0, "what needs nothing asks for nothing"


def test_weights_and_images_that_need_room(memory: Memory) -> None:
    x, w = torch.randint(-2, 3, (6, 16, 20, 20)).half(), torch.randint(-2, 3, (16, 16, 3, 3)).half()
    wanted = F.conv2d(x.double(), w.double(), padding=1).half()
    memory.free = 60_000  # one or two images turned to channels-last, beside the packed weights
    with pytest.warns(RuntimeWarning, match="mma_fprop.* runs in its place"), emulator.count() as counters:
        y = ops.conv2d_fprop(x, w, None, None, *GEOMETRY, "identity", "cuda")
    assert torch.equal(y, wanted)
    kernels = [launch.kernel for launch in counters.launches]
    assert kernels.count("mma_fprop") > 1, "the images did not come in parts"
    assert kernels.count("repack_weights") == 1
    assert packed_weights.kept_bytes() == 0


def test_other_errors_pass(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(size: int, device: torch.device) -> torch.Tensor:
        raise RuntimeError("the allocator is broken")

    monkeypatch.setattr(cuda, "_allocate", broken)
    with pytest.raises(RuntimeError, match="allocator is broken"):
        wgrad(*tensors())
