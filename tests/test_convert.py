"""convert and revert: the model is the same one afterwards, but for the kernels under it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.utils import parametrizations, parametrize

import fastconv


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Sequential(torch.nn.ConvTranspose2d(4, 3, 2, stride=2)),
    )


def images() -> torch.Tensor:
    return torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(1))


def test_converted_model_computes_the_same_with_fastconvs_kernels():
    model, x = network(), images()
    expected = model(x)
    report = fastconv.convert(model)
    torch.testing.assert_close(model(x), expected)
    assert [type(model[0]), type(model[2]), type(model[3][0])] == [
        fastconv.nn.Conv2d,
        fastconv.nn.MaxPool2d,
        fastconv.nn.ConvTranspose2d,
    ]
    assert [layer.names for layer in report.converted] == [("0",), ("2",), ("3.0",)]
    assert len(fastconv.explain(model, x)) == 3


def test_revert_undoes_convert_to_the_attribute():
    model = network()
    before = {name: (module, type(module), set(module.__dict__)) for name, module in model.named_modules()}
    fastconv.convert(model, backend="aten")
    report = fastconv.revert(model)
    assert len(report) == 3
    assert {name: (module, type(module), set(module.__dict__)) for name, module in model.named_modules()} == before
    assert len(fastconv.revert(model)) == 0


def test_convert_twice_changes_nothing():
    model = network()
    fastconv.convert(model)
    assert len(fastconv.convert(model)) == 0


def test_parameters_hooks_mode_and_keys_stay():
    model = network().eval()
    weight, keys, seen = model[0].weight, list(model.state_dict()), []
    model[0].register_forward_hook(lambda module, args, output: seen.append(module))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    fastconv.convert(model)
    model(images()).sum().backward()
    optimizer.step()
    assert model[0].weight is weight
    assert not model[0].training
    assert list(model.state_dict()) == keys
    assert seen == [model[0]]


def test_shared_module_is_converted_once_and_stays_shared():
    shared = torch.nn.Conv2d(2, 2, 3, padding=1)
    model = torch.nn.Sequential(shared, torch.nn.ReLU(), shared)
    (layer,) = fastconv.convert(model)
    assert layer.names == ("0", "2")
    assert model[0] is model[2] is shared


def test_a_layer_alone_is_a_model():
    layer = torch.nn.Conv2d(1, 1, 1)
    (row,) = fastconv.convert(layer)
    assert row.names == ("",)
    assert type(layer) is fastconv.nn.Conv2d


def test_backend_is_what_the_layers_insist_on():
    model = network()
    fastconv.convert(model, backend="aten")
    assert {call.asked for call in fastconv.explain(model, images())} == {"aten"}
    with pytest.raises(ValueError, match=r"convert\(\): backend is 'foo', but must be one of 'auto', 'cuda'"):
        fastconv.convert(network(), backend="foo")


def test_a_second_conversion_gives_its_backend_to_what_the_first_converted():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), fastconv.nn.Conv2d(1, 1, 1, backend="cuda"))
    fastconv.convert(model, backend="cuda")
    assert len(fastconv.convert(model)) == 0
    assert len(fastconv.convert(model, backend="cuda")) == 0
    report = fastconv.convert(model, backend="aten")
    assert [(layer.names, layer.converted) for layer in report] == [(("0",), True), (("1",), False)]
    assert "backend='cuda'" in report.left[0].reason
    assert [layer.backend for layer in model] == ["aten", "cuda"]
    fastconv.convert(model, backend="auto")
    assert model[0].backend == "auto"
    fastconv.revert(model)
    assert type(model[0]) is torch.nn.Conv2d


class Doubled(torch.nn.Conv2d):
    def forward(self, input):
        return 2 * super().forward(input)


def _patched():
    layer = torch.nn.Conv2d(1, 1, 1)
    layer.forward = lambda input: input
    return layer


def _with_attribute():
    layer = torch.nn.Conv2d(1, 1, 1)
    layer.activation = torch.nn.ReLU()
    return layer


LEFT = {
    "subclass": lambda: Doubled(1, 1, 1),
    "not initialised": lambda: torch.nn.LazyConv2d(1, 1),
    "TorchScript": lambda: torch.jit.script(torch.nn.Conv2d(1, 1, 1)),
    "quantised": lambda: torch.ao.nn.quantized.Conv2d(1, 1, 1),
    "forward was replaced": _patched,
    "'activation'": _with_attribute,
    "may compute something else": lambda: parametrizations.weight_norm(Doubled(1, 1, 1)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reason", LEFT)
def test_layers_that_are_left_say_why(reason):
    layer = LEFT[reason]()
    cls = type(layer)
    (row,) = fastconv.convert(torch.nn.Sequential(layer))
    assert reason in row.reason
    assert not row.converted
    assert type(layer) is cls


def test_layers_that_fastconv_has_nothing_for_are_not_in_the_report():
    assert len(fastconv.convert(torch.nn.Sequential(torch.nn.Conv1d(1, 1, 1), torch.nn.Linear(1, 1)))) == 0


def test_layers_that_were_fastconvs_already_are_not_reverted():
    """They may have an activation, which torch.nn's have not."""
    model = torch.nn.Sequential(fastconv.nn.Conv2d(1, 1, 1, activation="relu"), torch.nn.Conv2d(1, 1, 1))
    fastconv.convert(model)
    assert len(fastconv.revert(model)) == 1
    assert type(model[0]) is fastconv.nn.Conv2d


def test_activation_set_after_conversion_is_not_lost_by_revert():
    model = network()
    fastconv.convert(model)
    model[0].activation = "relu"
    report = fastconv.revert(model)
    assert [layer.names for layer in report.left] == [("0",)]
    assert type(model[0]) is fastconv.nn.Conv2d


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrized_layer(wrap):
    model, x = torch.nn.Sequential(wrap(torch.nn.Conv2d(2, 3, 3))).eval(), images()
    expected, keys, cls = model(x), list(model.state_dict()), type(model[0])
    fastconv.convert(model)
    assert isinstance(model[0], fastconv.nn.Conv2d)
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(copy.deepcopy(model)(x), expected)
    assert list(model.state_dict()) == keys
    fastconv.revert(model)
    assert type(model[0]) is cls
    torch.testing.assert_close(model(x), expected)


def test_parametrization_may_come_or_go_between_convert_and_revert():
    model, x = (
        torch.nn.Sequential(parametrizations.weight_norm(torch.nn.Conv2d(2, 3, 3)), torch.nn.Conv2d(3, 3, 1)),
        images(),
    )
    expected = model(x)
    fastconv.convert(model)
    parametrize.remove_parametrizations(model[0], "weight")
    parametrizations.weight_norm(model[1])
    assert type(model[0]) is fastconv.nn.Conv2d
    fastconv.revert(model)
    assert type(model[0]) is torch.nn.Conv2d
    assert not isinstance(model[1], fastconv.nn.Conv2d)
    torch.testing.assert_close(model(x), expected)


@pytest.mark.filterwarnings("ignore")
def test_weight_norm_by_hooks():
    layer, x = torch.nn.utils.weight_norm(torch.nn.Conv2d(2, 3, 3)), images()
    expected = layer(x)
    fastconv.convert(layer)
    torch.testing.assert_close(layer(x), expected)


def test_copy_of_a_converted_model_can_be_reverted():
    model = network()
    fastconv.convert(model)
    again = copy.deepcopy(model)
    assert len(fastconv.revert(again)) == 3
    assert type(model[0]) is fastconv.nn.Conv2d


def test_compiled_model_is_converted_under_its_compilation():
    model, x = network(), images()
    compiled = torch.compile(model, backend="aot_eager")
    expected = compiled(x)
    assert len(fastconv.convert(compiled)) == 3
    explanation = fastconv.explain(lambda: torch.testing.assert_close(compiled(x), expected))
    assert len(explanation) == 3


def test_what_cannot_be_converted_is_refused():
    with pytest.raises(TypeError, match="TorchScript"):
        fastconv.convert(torch.jit.script(network()))
    with pytest.raises(TypeError, match=r"convert\(\): model is <function network .* must be a torch\.nn\.Module"):
        fastconv.convert(network)
    with pytest.raises(TypeError, match=r"revert\(\): model is <class .*Conv2d'> of type type, but must be"):
        fastconv.revert(torch.nn.Conv2d)


def test_report_prints_names_and_reasons():
    text = str(fastconv.convert(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), Doubled(1, 1, 1))))
    assert "1 layers converted, 1 left" in text
    assert "fastconv.nn.Conv2d" in text
    assert "Doubled" in text


def test_channels_last_reaches_the_weights_and_every_output():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Conv2d(8, 4, 1, groups=2),
        torch.nn.ConvTranspose2d(4, 6, 2, stride=2),
    )  # fmt: skip
    x = torch.randn(2, 3, 12, 12)
    wanted, keys = model(x), list(model.state_dict())
    parameters = list(model.parameters())
    fastconv.convert(model, memory_format=torch.channels_last)
    assert list(model.state_dict()) == keys
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    for layer in model:
        if hasattr(layer, "weight"):
            assert layer.weight.is_contiguous(memory_format=torch.channels_last)
        x = layer(x)
        assert x.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(x, wanted)
    fastconv.revert(model)
    fastconv.convert(model, memory_format=torch.contiguous_format)
    assert all(parameter.is_contiguous() for parameter in model.parameters())


def test_other_memory_formats_are_refused():
    accepted = r"must be torch\.channels_last, torch\.contiguous_format or None"
    with pytest.raises(ValueError, match=rf"convert\(\): memory_format is torch\.preserve_format, but {accepted}"):
        fastconv.convert(torch.nn.Conv2d(1, 1, 1), memory_format=torch.preserve_format)
    with pytest.raises(TypeError, match=rf"convert\(\): memory_format is 'channels_last', but {accepted}"):
        fastconv.convert(torch.nn.Conv2d(1, 1, 1), memory_format="channels_last")
