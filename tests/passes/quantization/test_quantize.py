"""All steps together: noise of layers, layers that stay float, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.passes.quantization import pt2e
from reconvene.passes.quantization.noise import Noise
from reconvene.passes.quantization.quantize import Options, quantize
from tests.support.quantized import nodes, quantized, signal_to_noise

IMAGES = torch.randn(16, 3, 10, 10, generator=torch.Generator().manual_seed(0))


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    ).eval()  # fmt: skip


def test_decibels_by_hand() -> None:
    noise = Noise()
    noise.add(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5]))
    noise.add(torch.tensor([5.0]), torch.tensor([5.5]))
    assert noise.decibels == pytest.approx(20.0)
    assert Noise(1.0, 0.0).decibels is None and Noise(0.0, 1.0).decibels == -math.inf


class TestWithTorchao:
    @pytest.fixture(autouse=True)
    def _torchao(self) -> None:
        pytest.importorskip("torchao", reason="pip install '.[int8]'")

    def test_the_noise_of_a_layer_is_that_of_the_layer_alone(self) -> None:
        """Against networks in which all other layers are float."""
        module = capture(net(), (IMAGES,))
        whole = quantize(module, [(IMAGES,)], Options("min-max"))
        assert [layer.name for layer in whole.layers] == ["0", "2", "6"]
        only = quantize(module, [(IMAGES,)], Options("min-max", float_layers=("0", "2")))
        (layer,) = only.layers
        # Its result is the network's output, and its input is rounded in both.
        assert layer.decibels == pytest.approx(only.network.decibels, abs=0.5)
        first = nn.Sequential(*list(net().children())[:3]).eval()
        with torch.no_grad():
            alone = quantized(first, IMAGES)
            ratio = signal_to_noise(first[:2](IMAGES), _after_relu(alone, IMAGES))
        assert whole.layers[0].decibels == pytest.approx(ratio, abs=0.2)

    def test_the_network_of_all_layers_is_compared_with_the_model(self) -> None:
        module = capture(net(), (IMAGES,))
        found = quantize(module, [(IMAGES[:8],), (IMAGES[8:],)], Options())
        with torch.no_grad():
            exact, rounded = module(IMAGES), found.module(IMAGES)
        assert found.network.examples == 16
        assert found.network.decibels == pytest.approx(signal_to_noise(exact, rounded), abs=0.01)
        assert found.network.agreement == float((exact.argmax(1) == rounded.argmax(1)).float().mean())
        assert not found.operators

    def test_there_is_no_agreement_without_classes(self) -> None:
        found = quantize(capture(nn.Conv2d(3, 4, 3).eval(), (IMAGES,)), [(IMAGES,)], Options())
        assert found.network.agreement is None and found.network.decibels is not None

    @pytest.mark.parametrize("patterns", [("2",), ("2.weight",), ("[12]*",)])
    def test_layers_stay_float_by_name(self, patterns: tuple[str, ...]) -> None:
        found = quantize(capture(net(), (IMAGES,)), [(IMAGES,)], Options(float_layers=patterns))
        assert [layer.name for layer in found.layers] == ["0", "6"]
        assert [(layer.name, layer.reason) for layer in found.floats] == [("2", f"asked for by '{patterns[0]}'")]
        assert found.module.get_parameter("2.weight").dtype is torch.float32

    def test_layers_stay_float_by_their_noise(self) -> None:
        module = capture(net(), (IMAGES,))
        ratios = {layer.name: layer.decibels or 0.0 for layer in quantize(module, [(IMAGES,)], Options()).layers}
        worst, second, best = sorted(ratios, key=lambda name: ratios[name])
        found = quantize(module, [(IMAGES,)], Options(float_worst=1))
        assert [layer.name for layer in found.floats] == [worst]
        assert found.floats[0].reason == f"among the 1 of most noise ({ratios[worst]:.1f} dB)"
        found = quantize(module, [(IMAGES,)], Options(float_below=ratios[best]))
        assert {layer.name for layer in found.floats} == {worst, second}
        with pytest.raises(InputError, match="no layer of the model can be quantised: '0': among the 9"):
            quantize(module, [(IMAGES,)], Options(float_worst=9))

    def test_equal_ranges_help_a_network_that_needs_them(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
        with torch.no_grad():
            scale = 10 ** torch.linspace(-1.5, 1.5, 8)
            model[0].weight.mul_(scale.view(-1, 1, 1, 1))
            model[0].bias.mul_(scale)
            model[2].weight.div_(scale.view(-1, 1, 1))
        module = capture(model, (IMAGES,))
        plain = quantize(module, [(IMAGES,)], Options())
        found = quantize(module, [(IMAGES,)], Options(equalize=True))
        assert found.equalized == 1 and (found.network.decibels or 0) > (plain.network.decibels or 0) + 6

    def test_bias_correction_is_told(self) -> None:
        found = quantize(capture(net(), (IMAGES,)), [(IMAGES,)], Options(correct_bias=True))
        assert found.corrected == 3

    def test_several_inputs_and_outputs(self) -> None:
        class Two(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.one, self.two = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)

            def forward(self, image: Tensor, row: Tensor) -> dict[str, Tensor]:
                made = self.one(image).mean((2, 3))
                return {"sum": made + self.two(row), "row": self.two(row)}

        torch.manual_seed(0)
        rows = torch.randn(16, 4)
        module = capture(Two().eval(), {"row": rows, "image": IMAGES})
        found = quantize(module, [(IMAGES, rows)], Options())
        assert found.network.agreement is None and (found.network.decibels or 0) > 25
        assert found.module(image=IMAGES, row=rows).keys() == {"sum", "row"}

    def test_what_overflows_is_named(self) -> None:
        model = net()
        with torch.no_grad():
            model[2].weight.mul_(3e38)
        with pytest.raises(InputError, match="'2' gives NaN or infinity, or nearly that, on the calibration inputs"):
            quantize(capture(model, (IMAGES,)), [(IMAGES * 100,)], Options())

    def test_a_graph_is_quantised_once(self) -> None:
        found = quantize(capture(net(), (IMAGES,)), [(IMAGES,)], Options())
        with pytest.raises(InputError, match="the model is quantised already; quantise once"):
            quantize(found.module, [(IMAGES,)], Options())

    @pytest.mark.parametrize("model", [nn.ReLU(), nn.MaxPool2d(2)])
    def test_a_model_without_layers_is_refused(self, model: nn.Module) -> None:
        with pytest.raises(InputError, match="no layer that could be quantised: no convolution"):
            quantize(capture(model.eval(), (IMAGES,)), [(IMAGES,)], Options())

    def test_an_unknown_layer_is_refused(self) -> None:
        with pytest.raises(InputError, match="the pattern 'nothing' matches no layer; names look like '0'"):
            quantize(capture(net(), (IMAGES,)), [(IMAGES,)], Options(float_layers=("nothing",)))


def _after_relu(module: torch.fx.GraphModule, images: Tensor) -> Tensor:
    """What the second layer reads, in float."""
    from reconvene.passes.running import Recorder

    recorder = Recorder(module, None)
    recorder.values((images,))
    seen: Tensor = recorder.seen[nodes(module, "conv2d")[1].all_input_nodes[0].name]
    return seen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"observer": "best"}, "there is no observer 'best'; choose one of min-max, histogram, percentile"),
        ({"float_worst": -1}, "float_worst is -1; give a whole number from 0"),
        ({"float_worst": True}, "float_worst is True; give a whole number from 0"),
        ({"float_below": math.nan}, "float_below is nan; give a number of dB"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        Options(**options)  # type: ignore[arg-type]
    assert str(error.value) == message


def test_without_torchao_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchao.quantization.pt2e", None)
    pt2e.load_pt2e.cache_clear()
    try:
        with pytest.raises(InputError, match=r"quantising needs torchao; run: pip install 'torchao"):
            quantize(capture(net(), (IMAGES,)), [(IMAGES,)], Options())
    finally:
        pt2e.load_pt2e.cache_clear()
