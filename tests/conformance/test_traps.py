"""Mistakes that other implementations of these ops made, each with its test."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import fastconv
from fastconv import dispatch
from tests.conftest import BACKENDS
from tests.support.check import index_width
from tests.support.data import drawer, seeded

INFINITY = float("inf")
NAN = float("nan")


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def integers(*shape, seed=0, dtype=torch.float32):
    return drawer("integers", seeded(seed), dtype)(shape)


# Pooling


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_nan_wins_every_window_it_is_in(memory_format, dtype, backend, device):
    x = torch.randn(1, 3, 7, 7, device=device).to(dtype).contiguous(memory_format=memory_format)
    x[0, 1, 3, 2] = NAN
    x[0, 1, 3, 3] = INFINITY
    result, indices = fastconv.max_pool2d(x, 3, 2, 1, return_indices=True, backend=backend)
    expected, expected_indices = F.max_pool2d(x.cpu(), 3, 2, 1, return_indices=True)
    assert torch.equal(result.isnan().cpu(), expected.isnan())
    assert torch.equal(indices.cpu(), expected_indices)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("padding", [0, 1])
def test_window_of_minus_infinities_has_a_winner_inside_the_image(memory_format, padding, backend, device):
    x = torch.full((2, 3, 6, 6), -INFINITY, device=device).contiguous(memory_format=memory_format).requires_grad_()
    result, indices = fastconv.max_pool2d(x, 3, 2, padding, return_indices=True, backend=backend)
    expected, expected_indices = F.max_pool2d(x.detach().cpu(), 3, 2, padding, return_indices=True)
    assert torch.equal(result.cpu(), expected)
    assert torch.equal(indices.cpu(), expected_indices)
    (gradient,) = torch.autograd.grad(result, x, torch.ones_like(result))
    assert gradient.sum() == result.numel()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_dilation_counts_in_both_memory_formats(memory_format, backend, device):
    x = torch.randperm(2 * 4 * 9 * 9, device=device).float().view(2, 4, 9, 9).contiguous(memory_format=memory_format)
    result, indices = fastconv.max_pool2d(x, (2, 3), 1, 1, (3, 2), return_indices=True, backend=backend)
    expected, expected_indices = F.max_pool2d(x.cpu(), (2, 3), 1, 1, (3, 2), return_indices=True)
    assert torch.equal(result.cpu(), expected)
    assert torch.equal(indices.cpu(), expected_indices)


def test_the_first_of_equal_values_wins(backend, device):
    x = torch.zeros(1, 1, 4, 4, device=device, requires_grad=True)
    result, indices = fastconv.max_pool2d(x, 2, return_indices=True, backend=backend)
    assert indices.flatten().tolist() == [0, 2, 8, 10]
    (gradient,) = torch.autograd.grad(result, x, torch.full_like(result, 3.0))
    assert gradient.flatten().nonzero().flatten().tolist() == [0, 2, 8, 10]


@pytest.mark.parametrize("backend", ["aten", "cuda", "triton", "auto"])
def test_window_without_an_element_is_an_error(backend, device):
    """Dilation can step from one padding over a small image into the other. PyTorch's backward writes out of bounds."""
    x = torch.randn(1, 1, 1, 2, device=device)
    with pytest.raises(RuntimeError, match=r"dilation is .*window 0 along dimension 3 .*has no element"):
        fastconv.max_pool2d(x, (1, 2), (4, 1), (0, 1), (3, 3), ceil_mode=True, backend=backend)


# Convolution


def test_values_outside_of_the_image_are_zeros_even_beside_infinities(backend, device):
    """0 * inf is NaN: padding must not be read as a product, and no neighbour of a window may leak into it."""
    x, w = torch.randn(2, 2, 5, 5, device=device), torch.randn(3, 2, 3, 3, device=device)
    x[1, 0, 4, 4] = INFINITY
    x[0, 1, 0, 2] = NAN
    result = fastconv.conv2d(x, w, padding=2, stride=2, backend=backend)
    expected = F.conv2d(x.double().cpu(), w.double().cpu(), padding=2, stride=2)
    assert torch.equal(result.isnan().cpu(), expected.isnan())
    assert torch.equal(result.isinf().cpu(), expected.isinf())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_infinities_and_nan_reach_what_they_touch_and_nothing_else(dtype, mode, memory_format, backend, device):
    """In all three passes: elements that fill up a tile are zeros, and must not meet an infinity. In oneDNN they do."""
    x = integers(2, 5, 7, 6, dtype=dtype).to(device).contiguous(memory_format=memory_format)
    w = integers(6, 5, 3, 3, seed=1, dtype=dtype).to(device)
    dy = integers(2, 6, 4, 6, seed=2, dtype=dtype).to(device)
    x[1, 2, 2, 2], x[1, 0, 5, 5], x[0, 4, 0, 5] = INFINITY, -INFINITY, NAN
    dy[0, 0, 3, 0], dy[1, 5, 0, 1] = INFINITY, NAN
    leaves = [tensor.clone().requires_grad_() for tensor in (x, w)]
    y = fastconv.conv2d(*leaves, None, (2, 1), 1, padding_mode=mode, backend=backend)
    exact = [tensor.detach().cpu().double().requires_grad_() for tensor in (x, w)]
    padded = F.pad(exact[0], (1, 1, 1, 1), "constant" if mode == "zeros" else mode)
    expected = F.conv2d(padded, exact[1], stride=(2, 1))
    pairs = [(y, expected)]
    pairs += zip(
        torch.autograd.grad(y, leaves, dy), torch.autograd.grad(expected, exact, dy.cpu().double()), strict=True
    )
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.cpu().double(), theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_gradient_that_sum_sends_is_read_with_its_strides(memory_format, backend, device):
    """y.sum().backward() sends one number expanded to the shape of y, all strides 0."""
    x = integers(2, 3, 6, 5).to(device).contiguous(memory_format=memory_format).requires_grad_()
    w = integers(4, 3, 3, 2, seed=1).to(device).requires_grad_()
    fastconv.conv2d(x, w, stride=2, padding=1, backend=backend).sum().backward()
    expected_x, expected_w = x.detach().cpu().requires_grad_(), w.detach().cpu().requires_grad_()
    F.conv2d(expected_x, expected_w, stride=2, padding=1).sum().backward()
    assert torch.equal(x.grad.cpu(), expected_x.grad)
    assert torch.equal(w.grad.cpu(), expected_w.grad)


def test_rows_and_columns_that_no_window_reads_have_zero_gradients(backend, device):
    x = torch.randn(2, 3, 9, 10, device=device, requires_grad=True)
    y = fastconv.conv2d(x, torch.randn(4, 3, 2, 2, device=device), stride=3, backend=backend)
    (gradient,) = torch.autograd.grad(y, x, torch.randn_like(y))
    unread = torch.ones(9, 10, dtype=torch.bool, device=device)
    for row in (0, 1, 3, 4, 6, 7):
        for column in (0, 1, 3, 4, 6, 7):
            unread[row, column] = False
    assert (gradient[:, :, unread] == 0).all()
    assert (gradient[:, :, ~unread] != 0).any()


def test_bias_gradient_of_an_empty_batch_is_zero(backend, device):
    x, w, b = (torch.randn(shape, device=device, requires_grad=True) for shape in ((0, 3, 5, 5), (4, 3, 3, 3), (4,)))
    y = fastconv.conv2d(x, w, b, backend=backend)
    grads = torch.autograd.grad(y, (x, w, b), torch.randn_like(y))
    assert [grad.shape for grad in grads] == [x.shape, w.shape, b.shape]
    assert all((grad == 0).all() for grad in grads)


@pytest.mark.parametrize("groups", [2, 8, 64])
def test_groups_do_not_multiply_the_blocks(groups):
    """A grid over all filters of every group has as many times too many blocks as there are groups."""

    def grids(groups):
        """Of the direct kernel, which takes any groups, and of what was chosen."""
        direct, chosen = {}, {}

        def note(choice, _):
            op = choice.problem.op
            found = dispatch.candidates(choice.problem, "cuda")
            direct[op] = next(one.details["grid"] for one in found if one.legal and one.kernel.startswith("direct"))
            chosen[op] = choice.chosen.details["grid"]

        x, w = torch.randn(2, 64, 8, 8, requires_grad=True), torch.randn(64, 64 // groups, 3, 3, requires_grad=True)
        with dispatch.listening(note):
            y = fastconv.conv2d(x, w, padding=1, groups=groups, backend="cuda")
            torch.autograd.grad(y, (x, w), torch.randn_like(y))
        return direct, chosen

    dense, _ = grids(1)
    grouped, chosen = grids(groups)
    assert set(dense) == set(grouped) == {"conv2d_fprop", "conv2d_dgrad", "conv2d_wgrad"}
    # Tiles that a group of one filter leaves almost empty are worth a few times the blocks, never G times.
    assert all(grouped[op] <= 2 * dense[op] for op in dense)
    # A kernel of its own for groups has at least a plane of x or of y for every block.
    assert all(grid <= max(2 * dense[op], 2 * 64) for op, grid in chosen.items())


# Offsets beyond 32 bits. The storage is 4 GB of addresses; the kernels touch a few pages of it.


@pytest.fixture
def far_apart():
    """A [2, 1, 4, 5] view of a huge storage whose images are 2^31 + 64 elements apart."""
    distance = 2**31 + 64
    storage = torch.empty(distance + 32, dtype=torch.bfloat16)
    view = storage.as_strided((2, 1, 4, 5), (distance, 1, 5, 1))
    view.copy_(integers(2, 1, 4, 5, dtype=torch.bfloat16))
    return view


@pytest.mark.plain_memory
def test_image_more_than_2_to_the_31_elements_away(far_apart):
    near = far_apart.clone(memory_format=torch.contiguous_format)
    w = integers(3, 1, 2, 2, seed=3, dtype=torch.bfloat16)
    assert torch.equal(fastconv.conv2d(far_apart, w, backend="cuda"), F.conv2d(near.float(), w.float()).bfloat16())
    assert torch.equal(fastconv.max_pool2d(far_apart, 2, backend="cuda"), F.max_pool2d(near, 2))


@pytest.mark.plain_memory
def test_gradient_more_than_2_to_the_31_elements_away(far_apart):
    near = far_apart.clone(memory_format=torch.contiguous_format)
    x, w = integers(2, 1, 5, 6, dtype=torch.bfloat16), integers(1, 1, 2, 2, seed=3, dtype=torch.bfloat16)

    def gradients(dy):
        leaves = x.clone().requires_grad_(), w.clone().requires_grad_()
        return torch.autograd.grad(fastconv.conv2d(*leaves, backend="cuda"), leaves, dy)

    for one, other in zip(gradients(far_apart), gradients(near), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("bits", [32, 64])
def test_index_width_does_not_change_a_bit(bits, device):
    x, w = torch.randn(2, 4, 9, 8, device=device), torch.randn(6, 2, 3, 3, device=device)
    plain = fastconv.conv2d(x, w, groups=2, backend="cuda")
    with index_width(bits):
        assert torch.equal(fastconv.conv2d(x, w, groups=2, backend="cuda"), plain)


# Devices and streams


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_kernels_run_on_the_current_stream(backend):
    """Work on another stream than the default one must wait for that stream's earlier work, and only for it."""
    x = torch.zeros(8, 16, 64, 64, device="cuda")
    w = torch.ones(16, 16, 3, 3, device="cuda")
    fastconv.conv2d(x, w, backend=backend)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        x.fill_(1.0)
        y = fastconv.conv2d(x, w, backend=backend)
    stream.synchronize()
    assert (y == 16 * 9).all()


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_kernels_run_on_the_device_of_their_tensors(backend):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    with torch.cuda.device(0):
        x, w = integers(2, 3, 6, 6).to("cuda:1"), integers(4, 3, 3, 3, seed=1).to("cuda:1")
        y = fastconv.conv2d(x, w, backend=backend)
    assert y.device == x.device
    assert torch.equal(y.cpu(), F.conv2d(x.cpu(), w.cpu()))


@pytest.mark.gpu
def test_tensors_on_two_devices_are_refused(backend):
    with pytest.raises(RuntimeError, match="weight"):
        fastconv.conv2d(torch.randn(1, 2, 5, 5, device="cuda"), torch.randn(3, 2, 3, 3), backend=backend)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_calls_can_be_captured_in_a_cuda_graph(backend):
    x, w = torch.randn(2, 8, 16, 16, device="cuda"), torch.randn(8, 8, 3, 3, device="cuda")
    expected = fastconv.conv2d(x, w, backend=backend)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = fastconv.conv2d(x, w, backend=backend)
    y.zero_()
    graph.replay()
    assert torch.equal(y, expected)
