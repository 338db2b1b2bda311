"""`reconvene.quantize`: the forms of models and calibration inputs, the report, files, and what is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import reconvene
from reconvene.frontend.base.errors import InputError
from reconvene.passes.recovery.synthetic import Synthetic
from tests.support.quantized import settled

pytest.importorskip("torchao", reason="pip install '.[int8]'")

IMAGES = torch.randn(48, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.zeros(48, dtype=torch.long)


def net() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    return settled(model, IMAGES)


FORMS: dict[str, Callable[[], Any]] = {
    "batch": lambda: IMAGES,
    "array": IMAGES.numpy,
    "inputs of a call": lambda: (IMAGES,),
    "by name": lambda: {"input": IMAGES},
    "list": lambda: [IMAGES[:20], (IMAGES[20:],)],
    "loader": lambda: DataLoader(TensorDataset(IMAGES, LABELS), 16),
    "generator": lambda: (image[None] for image in IMAGES),
    "double": lambda: IMAGES.double(),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_forms_of_calibration_inputs(form: Callable[[], Any]) -> None:
    result = reconvene.quantize(net(), form(), example_inputs=(IMAGES[:1],), observer="min-max")
    assert result.report.calibration == "48 inputs that were given"
    assert len(result.report.layers) == 3 and not result.report.floats
    wanted = reconvene.quantize(net(), IMAGES, observer="min-max")
    torch.testing.assert_close(result.module(IMAGES), wanted.module(IMAGES), rtol=0, atol=5e-3)


def test_models_of_every_kind(tmp_path: Path) -> None:
    model = net()
    module = reconvene.capture(model, (IMAGES[:1],))
    program = torch.export.export(model, (IMAGES,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(program, tmp_path / "net.pt2")
    traced = torch.fx.symbolic_trace(model)
    found = [
        reconvene.quantize(each, IMAGES).module(IMAGES)
        for each in (model, module, program, tmp_path / "net.pt2", traced, str(tmp_path / "net.pt2"))
    ]
    assert all(torch.equal(each, found[0]) for each in found)


def test_after_pruning() -> None:
    pruned = reconvene.prune(net(), (IMAGES[:1],), sparsity=0.5)
    result = reconvene.quantize(pruned.module, IMAGES)
    assert result.module.get_buffer("0.weight").shape[0] == 8
    with torch.no_grad():
        exact = pruned.module(IMAGES)
        assert (result.module(IMAGES) - exact).norm() < 0.05 * exact.norm()


def test_only_so_many_inputs_are_looked_at() -> None:
    looked: list[int] = []

    def batches() -> Any:
        for start in range(0, 48, 4):
            looked.append(start)
            yield IMAGES[start : start + 4], LABELS[:4]

    result = reconvene.quantize(net(), batches(), example_inputs=(IMAGES[:1],), images=10)
    assert len(looked) == 3 and result.report.calibration == "12 inputs that were given"


def test_a_large_batch_is_looked_at_in_parts_and_gives_the_same() -> None:
    model = net()
    parts = reconvene.quantize(model, list(IMAGES.split(8)), observer="min-max")
    whole = reconvene.quantize(model, IMAGES, observer="min-max")
    assert torch.equal(parts.module(IMAGES), whole.module(IMAGES))


def test_synthetic_inputs_are_said_to_be_that() -> None:
    quick = Synthetic("matched", images=8, steps=2)
    result = reconvene.quantize(net(), quick, example_inputs=(IMAGES[:1],))
    assert "synthetic inputs" in result.report.calibration and result.report.evaluation == "the calibration inputs"
    noise = reconvene.quantize(net(), "noise", example_inputs=(IMAGES[:1],), evaluation=IMAGES)
    assert noise.report.evaluation == "48 inputs that were given" and noise.report.network.examples == 48


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (IMAGES[:, :2], "the evaluation inputs do not fit the model"),
        (IMAGES * float("nan"), "the evaluation inputs hold NaN"),
        ((IMAGES * 50).to(torch.uint8), "the evaluation inputs are uint8"),
        ([], "there are no evaluation inputs"),
        (7, "gives no evaluation inputs"),
        ([7], "the evaluation inputs hold an? int"),
    ],
)
def test_wrong_evaluation_inputs_are_called_that(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        reconvene.quantize(net(), IMAGES[:2], evaluation=given)


def test_the_report_is_json_and_the_result_is_short(tmp_path: Path) -> None:
    result = reconvene.quantize(net(), IMAGES, float_layers=["3"], correct_bias=True, equalize=True)
    told = json.loads(result.report.to_json())
    assert told["schema"] == "reconvene.quantization/1" and told["options"]["float_layers"] == ["3"]
    assert told["floats"] == [{"name": "3", "operator": "conv2d", "reason": "asked for by '3'"}]
    assert [layer["name"] for layer in told["layers"]] == ["0", "7"] and told["corrected"] == 2
    assert told["network"]["examples"] == 48 and told["network"]["decibels"] > 20
    assert told["bytes_after"] < told["bytes_before"] and told["environment"]["torchao"].startswith("0.18")
    shown = repr(result)
    assert shown.startswith("Quantized(2 layers in 8 bits, 1 in float; ") and len(shown) < 120
    assert f"{told['network']['decibels']:.1f} dB on 48 inputs, the same class for" in shown


def test_a_saved_network_is_the_same_to_the_bit(tmp_path: Path) -> None:
    result = reconvene.quantize(net(), IMAGES)
    result.save(tmp_path / "int8.pt2")
    assert torch.equal(reconvene.capture(tmp_path / "int8.pt2")(IMAGES), result.module(IMAGES))
    assert torch.equal(torch.export.load(tmp_path / "int8.pt2").module()(IMAGES), result.module(IMAGES))


def test_the_model_is_left_as_it_was() -> None:
    model = net().train()
    before = copy.deepcopy(model.state_dict())
    reconvene.quantize(model, IMAGES, correct_bias=True, equalize=True)
    assert model.training and all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(type(value) in (torch.Tensor, nn.Parameter) for value in [*model.parameters(), *model.buffers()])


WRONG: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "shape": (lambda: IMAGES[:, :2], {}, "the calibration inputs do not fit the model: .*"),
    "image": (lambda: [IMAGES[0]], {}, "the calibration inputs do not fit the model: .*"),
    "empty list": (list, {}, "there are no calibration inputs: what was given is empty; give at least one batch"),
    "empty batch": (lambda: IMAGES[:0], {}, "the calibration inputs do not fit the model: .* has size 0, .*"),
    "nan": (lambda: IMAGES / 0.0 * 0.0, {}, "the calibration inputs hold NaN or infinity; take these out"),
    "type": (lambda: IMAGES.long(), {}, "the calibration inputs are int64, and the model takes float32; .*"),
    "bytes": (lambda: IMAGES.byte(), {}, "the calibration inputs are uint8, and the model takes float32; .*"),
    "used up": (
        lambda: iter(()),
        {},
        "there are no calibration inputs: what was given is empty; give at least one batch",
    ),
    "one of them": (lambda: [IMAGES, IMAGES[:, :2]], {}, "the calibration inputs do not fit the model: .*"),
    "number": (lambda: 3, {}, "a int gives no calibration inputs; give a batch, .*"),
    "kind": (lambda: "photos", {}, "there are no synthetic inputs called 'photos'; choose one of .*"),
    "observer": (lambda: IMAGES, {"observer": "best"}, "there is no observer 'best'; choose one of .*"),
    "layers": (lambda: IMAGES, {"float_layers": [0]}, r"float_layers are names or patterns of them, .* not \[0\]"),
    "pattern": (lambda: IMAGES, {"float_layers": ["9"]}, "the pattern '9' matches no layer; names look like '0'"),
    "images": (lambda: IMAGES, {"images": 0}, "images is 0; give a whole number from 1"),
    "worst": (lambda: IMAGES, {"float_worst": 0.5}, "float_worst is 0.5; give a whole number from 0"),
    "overflow": (
        lambda: IMAGES * 6e37,
        {},
        "'.*' gives NaN or infinity, or nearly that, .*",
    ),
}


@pytest.mark.parametrize(("given", "options", "message"), WRONG.values(), ids=WRONG)
def test_what_makes_no_sense_is_refused_in_one_line(
    given: Callable[[], Any], options: dict[str, Any], message: str
) -> None:
    module = reconvene.capture(net(), (IMAGES[:1],))
    with pytest.raises(reconvene.InputError, match=f"^{message}$") as error:
        reconvene.quantize(module, given(), **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("empty", [[], torch.utils.data.DataLoader([])])
def test_an_empty_list_is_refused_where_the_model_has_no_inputs_either(empty: Any) -> None:
    with pytest.raises(reconvene.InputError, match=r"^there are no calibration inputs: what was given is empty"):
        reconvene.quantize(net(), empty)


def test_weights_that_are_not_finite_are_named() -> None:
    model = net()
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = torch.nan
    with pytest.raises(reconvene.InputError, match=r"^'0.weight' holds NaN or infinity, and has no scale; train again"):
        reconvene.quantize(model, torch.zeros_like(IMAGES))


def test_a_loader_that_fails_is_told_with_its_line() -> None:
    def broken() -> Any:
        yield IMAGES
        raise RuntimeError("no more disk")

    with pytest.raises(reconvene.InputError, match=r"a batch of calibration inputs cannot be made: .*no more disk"):
        reconvene.quantize(reconvene.capture(net(), (IMAGES[:1],)), broken(), images=100)


def test_arrays_and_several_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(3, 4)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return self.one(a) + self.two(b)

    torch.manual_seed(0)
    a, b = torch.randn(8, 4), torch.randn(8, 3)
    loader = DataLoader(TensorDataset(a, b, LABELS[:8]), 4)
    for given in ((a, b), [(a.numpy(), b.numpy())], {"b": b, "a": a}, loader, [((a, b), LABELS[:8])]):
        result = reconvene.quantize(Two(), given, example_inputs=(a[:1], b[:1]))
        assert result.report.network.examples == 8 and isinstance(a.numpy(), np.ndarray)
