"""Quantised networks that are trained: the same numbers, gradients that pass, zeros that stay, and integers again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import reconvene
from reconvene.frontend.graph_module import CapturedModule
from reconvene.frontend.program_file import load_program, save_program
from reconvene.frontend.quantized_operators import has_fake_rounding, is_quantized
from reconvene.passes.quantization.rounds import rounds
from reconvene.passes.quantization.training import integer_layers, rounded, trainable
from tests.support.quantized import quantized, settled

pytest.importorskip("torchao", reason="pip install '.[int8]'")

_REFUSED = r"quantised already; prune before|quantised for training|leave the options out|there are none"
IMAGES = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU6(),
        nn.ConvTranspose2d(8, 4, 2), nn.Dropout(0.2), nn.Flatten(), nn.Linear(100, 3),
    )  # fmt: skip
    return settled(model, IMAGES)


@pytest.fixture(scope="module")
def module() -> CapturedModule:
    return quantized(net(), IMAGES)


def test_it_begins_with_the_same_numbers_and_goes_back_to_the_same_integers(module: CapturedModule) -> None:
    made = trainable(module)
    assert has_fake_rounding(made) and not is_quantized(made) and not has_fake_rounding(module)
    assert torch.equal(made(IMAGES), module(IMAGES))
    again = rounded(made)
    assert torch.equal(again(IMAGES), module(IMAGES))
    here, there = module.state_dict(), again.state_dict()
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], there[name]) for name in here if not name.endswith("_scale"))
    assert [name for name, _ in integer_layers(again)] == ["0", "3", "5", "8"]


def train(made: torch.fx.GraphModule, steps: int = 60) -> list[float]:
    made.train()
    optimizer = torch.optim.SGD([p for p in made.parameters() if p.requires_grad], lr=0.2, momentum=0.9)
    targets = torch.arange(32) % 3
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(made(IMAGES), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    made.eval()
    return losses


def test_it_learns_and_what_comes_out_is_what_was_trained(module: CapturedModule) -> None:
    made = trainable(module)
    before = {name: value.detach().clone() for name, value in made.named_parameters()}
    losses = train(made)
    assert losses[-1] < 0.8 * losses[0]
    assert all(not torch.equal(before[name], value) for name, value in made.named_parameters())
    result = rounded(made)
    assert torch.equal(result(IMAGES), made(IMAGES))
    assert result.get_buffer("0.weight").dtype is torch.int8 and result.get_buffer("0.weight").abs().max() == 127
    assert all(result.get_buffer(f"{place}.weight_zero_point").eq(0).all() for place in (0, 3, 5, 8))


def test_masked_weights_stay_zero() -> None:
    model = net()
    with torch.no_grad():
        model[0].weight[torch.rand_like(model[0].weight) < 0.6] = 0
    made = trainable(quantized(model, IMAGES))
    zero = made.get_parameter("0.weight") == 0
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
    reconvene.Masks.of(made).apply(optimizer)
    made(IMAGES).square().mean().backward()
    optimizer.step()
    assert (rounded(made).get_buffer("0.weight")[zero] == 0).all() and zero.float().mean() > 0.5


def test_files_hold_both(module: CapturedModule, tmp_path: Path) -> None:
    made = trainable(module)
    train(made, 3)
    save_program(made, (IMAGES,), tmp_path / "trained.pt2")
    again, _ = load_program(tmp_path / "trained.pt2")
    assert torch.equal(again(IMAGES), made(IMAGES)) and has_fake_rounding(again)
    result = reconvene.quantize(tmp_path / "trained.pt2", evaluation=IMAGES)
    assert torch.equal(result.module(IMAGES), rounded(made)(IMAGES))
    assert [rounds(node) for node in result.module.graph.nodes].count("dequantize_per_channel") == 4
    assert result.report.network.decibels is None and result.report.network.examples == 32
    assert len(result.report.layers) == 4 and result.report.calibration == "what the network was trained with"
    both = reconvene.quantize(tmp_path / "trained.pt2", IMAGES[:3], evaluation=IMAGES[:5])
    assert both.report.network.examples == 5


def test_through_the_public_functions() -> None:
    result = reconvene.quantize(net(), IMAGES)
    made = result.trainable()
    train(made, 3)
    again = reconvene.quantize(made)
    assert torch.equal(again.module(IMAGES), made(IMAGES))
    for action in (
        lambda: reconvene.prune(made, (IMAGES,)),
        lambda: reconvene.compile(made, (IMAGES,)),
        lambda: reconvene.quantize(made, observer="min-max"),
        lambda: reconvene.quantize(net(), example_inputs=(IMAGES,)),
    ):
        with pytest.raises(reconvene.InputError, match=_REFUSED):
            action()


def test_weights_that_are_lost_in_training_are_named(module: CapturedModule) -> None:
    made = trainable(module)
    with torch.no_grad():
        made.get_parameter("3.weight")[0] = float("nan")
    with pytest.raises(reconvene.InputError, match=r"the weights of '3.weight' are not finite; train again"):
        rounded(made)
