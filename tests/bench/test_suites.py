"""Suites: the layers are those of the networks, and shapes follow PyTorch."""

import dataclasses

import pytest
import torch

from fastconv.bench.cases import Case, Selection, by_expected_gap, case_of, problems, select
from fastconv.bench.contestants import pytorch
from fastconv.bench.hardware import gpu_named
from fastconv.bench.names import UnknownNameError
from fastconv.bench.runner import make_inputs
from fastconv.bench.session import Options, finished_rows, make_job, require_same_device
from fastconv.bench.suite import FAMILIES, load_suite, scaled_down, suite_names
from fastconv.problem import Target
from tests.bench.synthetic import measured, write

LAYERS = [layer for name in suite_names() for layer in load_suite(name).layers]
H200 = Target("cuda", 90, 132, "H200")


def test_every_suite_of_the_plan_is_there_and_names_its_source():
    wanted = "resnet50 vgg16 unet convnext_t mobilenet_v2 efficientnet_b0 resnext50 replknet31b dcgan sd_unet"
    assert set(f"{wanted} super_resolution stems pools blocks".split()) == set(suite_names())
    for name in suite_names():
        suite = load_suite(name)
        assert "arXiv" in suite.source
        assert suite.layers
        assert any(layer.quick for layer in suite.layers), f"--quick would leave {name} out"


@pytest.mark.parametrize(
    ("suite", "convolutions"),
    # Published networks: convolutions a network has, pools aside.
    [("resnet50", 53), ("resnext50", 53), ("vgg16", 13), ("unet", 23), ("mobilenet_v2", 52), ("efficientnet_b0", 81)],
)
def test_a_suite_has_as_many_convolutions_as_its_network(suite, convolutions):
    assert sum(layer.count for layer in load_suite(suite).layers if layer.op != "max_pool2d") == convolutions


@pytest.mark.parametrize(
    ("suite", "gigaflops"),
    # Multiply-adds of one image as the papers give them: 3.8-4.1, 15.5, 0.30, 0.39 (with pools and linear layers aside).
    [("resnet50", 4.09), ("vgg16", 15.35), ("mobilenet_v2", 0.30), ("efficientnet_b0", 0.39), ("resnext50", 4.23)],
)
def test_the_multiply_adds_of_a_network_are_the_published_ones(suite, gigaflops):
    layers = [layer for layer in load_suite(suite).layers if layer.op != "max_pool2d"]
    assert sum(layer.flops(1) * layer.count for layer in layers) / 2e9 == pytest.approx(gigaflops, rel=0.02)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.id)
def test_output_sizes_are_pytorchs_for_the_layer_and_its_small_copy(layer):
    for one in (layer, scaled_down(layer)):
        case = Case(one, "fwd", "float32", "nchw", 1)
        with torch.device("meta"):
            inputs = [torch.empty(case.sizes(role)) for role in case.roles()]
            (output,) = pytorch(case).run(*inputs)
        assert tuple(output.shape) == case.sizes("dy")
        assert one.family in FAMILIES


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.id)
def test_a_small_copy_is_small_and_of_the_same_kind(layer):
    small = scaled_down(layer)
    assert (small.kernel, small.stride, small.padding, small.family) == (
        layer.kernel,
        layer.stride,
        layer.padding,
        layer.family,
    )
    assert small.channels % small.groups == small.filters % small.groups == 0
    assert small.flops(2) < 5e7


@pytest.mark.parametrize("direction", ["fwd", "dgrad", "wgrad", "fwd+bwd"])
def test_the_problems_of_a_case_do_its_work(direction):
    for layer in LAYERS:
        for case in select(
            Selection(filters=[layer.id], directions=[direction], precisions=["bfloat16"], layouts=["nchw"])
        ):
            if case.layer != layer:
                continue
            made = problems(case, H200)
            convolutions = [one for one in made if one.op.startswith("conv2d")]
            if layer.op == "max_pool2d":
                assert len(made) == {"fwd": 1, "dgrad": 1, "fwd+bwd": 2}[direction]
            else:
                assert sum(one.flops() for one in convolutions) == case.flops()


def test_a_small_batch_is_enough_to_make_inputs_that_are_random():
    case = Case(scaled_down(load_suite("pools").layers[0]), "dgrad", "bfloat16", "channels_last", 2)
    x, dy = make_inputs(case, torch.device("cpu"), case.layout, seed=3)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert dy.shape == case.sizes("dy")
    assert not torch.equal(x, make_inputs(case, torch.device("cpu"), case.layout, seed=4)[0])


def test_what_lies_under_no_window_is_not_compulsory_to_read_but_its_gradient_is_to_write():
    """Else a kernel of a strided 1x1, which passes three pixels of four over, would be rejected as faster than the roofline."""
    for name, share in (("layer2.0.downsample", 0.25), ("layer2.0.conv2", 1.0), ("maxpool", 1.0)):
        (layer,) = (one for one in load_suite("resnet50").layers if one.name == name)
        x, w, y = layer.elements(2).values()
        offsets = y if layer.op == "max_pool2d" else 0
        fwd, dgrad = 2 * (share * x + w + y), 2 * (x + w + y) + offsets
        assert Case(layer, "fwd", "bfloat16", "nchw", 2).bytes_moved() == fwd
        assert Case(layer, "dgrad", "bfloat16", "nchw", 2).bytes_moved() == dgrad
        both = Case(layer, "fwd+bwd", "bfloat16", "nchw", 2).bytes_moved()
        if layer.op == "max_pool2d":
            assert both == fwd + offsets + dgrad
        else:
            assert Case(layer, "wgrad", "bfloat16", "nchw", 2).bytes_moved() == fwd
            assert both == 2 * fwd + dgrad


def test_a_transposed_convolution_writes_also_what_no_window_reaches():
    layer = dataclasses.replace(
        load_suite("unet").layers[0], op="conv_transpose2d", kernel=(1, 1), stride=(2, 2), padding=(0, 0)
    )
    x, w, y = layer.elements(1).values()
    rows, columns = layer.size
    assert layer.seen() == rows * columns / ((2 * rows - 1) * (2 * columns - 1))
    assert Case(layer, "fwd", "float32", "nchw", 1).bytes_moved() == 4 * (x + w + y)
    for direction in ("dgrad", "wgrad"):
        assert Case(layer, direction, "float32", "nchw", 1).bytes_moved() == 4 * (
            x + w + x // layer.channels * layer.filters
        )


def test_a_case_is_found_by_its_key():
    for case in select(Selection(suites=["unet"], precisions=["tf32"])):
        assert case_of(case.key) == case


def test_under_a_time_budget_the_biggest_expected_gaps_come_first():
    cases = by_expected_gap(select(Selection(quick=True)), gpu_named("H200").ceilings())
    assert cases[0].layer.suite == "replknet31b"
    assert cases[-1].layer.family == "dense"


@pytest.mark.parametrize(
    ("selection", "what"),
    [
        (Selection(suites=["resnet51"]), "suite.*resnet51.*did you mean resnet50"),
        (Selection(filters=["resnet50/layer9.0.conv1"]), "layer.*did you mean"),
        (Selection(precisions=["bf16"]), "dtype.*bfloat16"),
        (Selection(directions=["forward"]), "pass.*fwd"),
        (Selection(layouts=["nhwc"]), "layout.*channels_last"),
        (Selection(families=["deep"]), "family.*depthwise"),
    ],
)
def test_an_unknown_name_is_an_error_that_names_the_known_ones(selection, what):
    with pytest.raises(UnknownNameError, match=what):
        select(selection)


def test_an_unknown_gpu_is_an_error_that_names_the_known_ones():
    with pytest.raises(UnknownNameError, match="A100, H100, H200"):
        gpu_named("V100")


@pytest.mark.parametrize("budget", [0.0, -5.0, float("nan")])
def test_a_time_budget_that_is_no_time_is_an_error(budget):
    options = Options(Selection(quick=True), time_budget=budget, measured=False)
    with pytest.raises(ValueError, match="time_budget is"):
        make_job(options, select(options.selection), began=0.0)


def test_a_run_of_one_device_is_not_resumed_on_another(tmp_path):
    path = write(tmp_path / "r.jsonl", [measured(select(Selection())[0], "pytorch", 1.0)], device={"name": "one GPU"})
    require_same_device(path, {"device": {"name": "one GPU"}})
    require_same_device(tmp_path / "not there yet.jsonl", {"device": {"name": "one GPU"}})
    for facts in ({"device": {"name": "another GPU"}}, {"predicted_gpu": "H200"}):
        with pytest.raises(ValueError, match=r"resume: .* is of one GPU, and this run would be of"):
            require_same_device(path, facts)


@pytest.mark.parametrize("text", [None, "", '{"record": "environ'])
def test_a_run_interrupted_before_its_first_line_is_begun_again(tmp_path, text):
    path = tmp_path / "r.jsonl"
    if text is not None:
        path.write_text(text)
    assert finished_rows(path) == set()
    require_same_device(path, {"predicted_gpu": "H200"})


def test_a_batch_below_one_is_an_error():
    with pytest.raises(ValueError, match="batch is 0"):
        select(Selection(batch=0))
