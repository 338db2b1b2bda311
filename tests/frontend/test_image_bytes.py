"""Models on images as bytes: the numbers that they were normalised to, to the bit, and every name of a weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reconvene
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.image_bytes import ORDERS, on_image_bytes
from reconvene.passes.integers.lowering import with_integers
from reconvene.passes.integers.operators import OPERATORS

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EVERY = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
"""All bytes in all colours, two images."""


def normalised(image: Tensor) -> Tensor:
    return (image.float() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def quantized(network: nn.Module) -> torch.fx.GraphModule:
    return reconvene.quantize(network, normalised(EVERY), observer="min-max").module


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("which", ["float", "int8"])
def test_it_is_the_model_behind_its_normalisation(which: str, order: str, network: Any, quantized: Any) -> None:
    module = quantized if which == "int8" else reconvene.capture(network, (normalised(EVERY),))
    found = on_image_bytes(module, MEAN, STD, order=order)
    given = EVERY.permute(0, 2, 3, 1) if order == "NHWC" else EVERY
    assert torch.equal(found(given), module(normalised(EVERY)))
    # The example's images are those that they were before they were normalised.
    (example,) = found.meta["example_inputs"]
    assert example.dtype == torch.uint8 and (which == "int8" or torch.equal(example, given))
    added = found.state_dict().keys() - module.state_dict().keys()
    assert added == {"image_mean", "image_std"} and module.state_dict().keys() <= found.state_dict().keys()
    again = reconvene.capture(found)
    assert torch.allclose(again(given[:1]), found(given)[:1], atol=1e-6)  # The batch stays free.


def test_codes_of_all_bytes_are_a_table_of_each_colour(quantized: torch.fx.GraphModule) -> None:
    found = on_image_bytes(quantized, MEAN, STD, order="NCHW")
    program = with_integers(torch.export.export(found, (EVERY,)).module(check_guards=False))
    assert not program.floats
    (first,) = (node for node in program.module.graph.nodes if node.target is OPERATORS.code_table.default)
    (scale, zero) = next(node for node in quantized.graph.nodes if "quantize_per_tensor" in node.name).args[1:3]
    image, table = (getattr(node, "target", None) for node in first.args[:2])
    assert image == "image"
    codes = program.module.get_buffer(str(table))
    wanted = torch.ops.quantized_decomposed.quantize_per_tensor(
        normalised(EVERY[0]), scale, zero, -128, 127, torch.int8
    )
    assert torch.equal(codes, wanted.flatten(1))
    assert torch.equal(OPERATORS.code_table(EVERY, codes, 1), wanted.expand(2, -1, -1, -1))


def test_a_grey_image_has_one_table() -> None:
    torch.manual_seed(0)
    grey = EVERY[:, :1]
    model = reconvene.quantize(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)), grey.float() / 100
    ).module
    found = on_image_bytes(model, [0.5], [0.25], order="NCHW")
    program = with_integers(torch.export.export(found, (grey,)).module(check_guards=False))
    assert not program.floats
    (first,) = (node for node in program.module.graph.nodes if node.target is OPERATORS.code_table.default)
    assert program.module.get_buffer(str(first.args[1].target)).shape == (256,)  # type: ignore[union-attr]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "order": ({"order": "HWC"}, "there is no order 'HWC' of an image's axes; choose NHWC or NCHW"),
    "colours": ({"mean": [0.5]}, "mean has 1 numbers, and the images' colours are 3"),
    "infinity": ({"std": [1.0, float("inf"), 1.0]}, "std has 3 numbers.*a finite one for each"),
    "one number": ({"mean": 0.5}, "mean is 0.5; give a list of numbers"),
    "words": ({"std": ["a", "b", "c"]}, "std is .*; give a list of numbers"),
    "of 255": ({"mean": [123.7, 116.3, 103.5]}, "not from 0 to 1; give shares of 255"),
    "zero": ({"std": [1.0, 0.0, 1.0]}, "std has a number that is not above 0"),
}


@pytest.mark.parametrize(("changed", "message"), WRONG.values(), ids=WRONG)
def test_what_makes_no_sense_is_refused(changed: dict[str, Any], message: str, network: nn.Module) -> None:
    given: dict[str, Any] = {"mean": MEAN, "std": STD, "example_inputs": (normalised(EVERY),), **changed}
    with pytest.raises(InputError, match=message):
        on_image_bytes(network, **given)


def test_only_images_are_bytes(network: nn.Module) -> None:
    for model, inputs, told in (
        (nn.Linear(3, 2), (torch.randn(2, 3),), "float32 2x3"),
        (nn.Bilinear(3, 3, 2), (torch.randn(2, 3), torch.randn(2, 3)), "float32 2x3, float32 2x3"),
        (on_image_bytes(network, MEAN, STD, example_inputs=(normalised(EVERY),)), None, "uint8 2x16x16x3"),
    ):
        with pytest.raises(InputError, match=rf"images of float32 \(N, C, H, W\), .* this one takes {told};"):
            on_image_bytes(model, MEAN, STD, example_inputs=inputs)


class _Named(nn.Module):
    """With parts of the names that the normalisation's have elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("image_mean", torch.tensor(7.0))
        self.image_std = nn.Conv2d(3, 2, 1)

    def forward(self, image: Tensor) -> Any:
        return self.image_std(image - self.image_mean)


def test_a_model_keeps_parts_of_the_normalisation_s_names() -> None:
    module = reconvene.capture(_Named().eval(), (normalised(EVERY),))
    found = on_image_bytes(module, MEAN, STD, order="NCHW")
    assert torch.equal(found(EVERY), module(normalised(EVERY)))
    assert found.state_dict()["image_mean"] == 7.0
