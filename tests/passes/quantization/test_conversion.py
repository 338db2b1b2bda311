"""The graph that comes out: numbers by hand, properties of weights and scales, names, copies, files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from reconvene.frontend.capture import capture
from reconvene.frontend.program_file import load_program, save_program
from reconvene.passes.quantization.rounds import rounds
from tests.support.quantized import nodes, quantized, read_by, settled, signal_to_noise

pytest.importorskip("torchao", reason="pip install '.[int8]'")


class Block(nn.Module):
    """A block of a ResNet, and one of a MobileNet, in small."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8),
        )  # fmt: skip
        self.mobile = nn.Sequential(
            nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU6(),
            nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8),
        )  # fmt: skip
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = (self.body(x) + x).relu()
        x = self.mobile(x) + x
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


IMAGES = torch.randn(32, 3, 12, 12, generator=torch.Generator().manual_seed(0))
OTHERS = torch.randn(64, 3, 12, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def block() -> nn.Module:
    return settled(Block(), IMAGES)


@pytest.mark.parametrize("observer", ["min-max", "histogram", "percentile"])
def test_blocks_lose_little(block: nn.Module, observer: str) -> None:
    module = quantized(block, IMAGES, observer=observer)
    assert len(nodes(module, "conv2d")) == 6 and not nodes(module, "batch_norm")
    float_reads = [node for node in nodes(module, "conv2d") + nodes(module, "add") if None in read_by(node)[:1]]
    assert not float_reads
    with torch.no_grad():
        assert signal_to_noise(block(OTHERS), module(OTHERS)) > 28
        assert (block(OTHERS).argmax(1) == module(OTHERS).argmax(1)).float().mean() > 0.9


def test_a_layer_by_hand() -> None:
    """One product after the other, in whole numbers."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1, bias=False)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.27, -0.635], [0.127, 0.0]]))
        model[0].bias.copy_(torch.tensor([0.5, -0.1]))
        model[2].weight.copy_(torch.tensor([[2.54, -1.28]]))
    rows = torch.tensor([[1.0, -0.55], [-1.55, 0.2]])
    module = quantized(model, rows)
    assert module.get_buffer("0.weight").tolist() == [[127, -64], [127, 0]]  # 63.5 rounds to even.
    torch.testing.assert_close(module.get_buffer("0.weight_scale"), torch.tensor([0.01, 0.001]))
    (scale, zero) = read_by(nodes(module, "linear")[0])[0] or (0, 0)
    assert (round(scale, 5), zero) == (0.01, 27)
    hidden = torch.tensor([[1.27 + 0.64 * 0.55 + 0.5, 0.027], [0.0, 0.0]])
    (step, low) = read_by(nodes(module, "linear")[1])[0] or (0, 0)
    assert low == -128 and step == pytest.approx((1.27 + 0.635 * 0.55 + 0.5) / 255)  # Of the float network.
    steps = (hidden / step).round().clamp(0, 255)
    torch.testing.assert_close(module(rows), steps @ torch.tensor([[2.54], [-1.28]]) * step)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**31), st.sampled_from([1e-12, 1e-4, 1.0, 1e4]))
def test_weights_are_whole_numbers_without_a_zero_point(seed: int, size: float) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1)).eval()
    with torch.no_grad():
        model[0].weight.mul_(size)
        model[0].bias.mul_(size)
    images = torch.randn(2, 2, 6, 6)
    module = quantized(model, images)
    for place in (0, 2):
        weight = module.get_buffer(f"{place}.weight")
        assert weight.dtype is torch.int8 and weight.min() >= -127
        assert module.get_buffer(f"{place}.weight_zero_point").eq(0).all()
    with torch.no_grad():
        assert signal_to_noise(model(images), module(images)) > 25


def test_zeros_stay_zeros() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    kept = {}
    with torch.no_grad():
        for place in (0, 2):
            kept[place] = torch.rand_like(model[place].weight) < 0.3
            model[place].weight.mul_(kept[place])
            model[place].weight[1] = 0
    module = quantized(model, IMAGES)
    for place in (0, 2):
        weight = module.get_buffer(f"{place}.weight")
        assert (weight[~kept[place]] == 0).all() and (weight[1] == 0).all()


def test_a_bias_fits_into_32_bits_whatever_the_weights() -> None:
    """In steps of the scales of its input and weights; and for a channel without weights it is precise."""
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1)).eval()
    with torch.no_grad():
        model[0].weight[0] = 0.0
        model[0].weight[1] *= 1e-14
        model[0].bias.copy_(torch.tensor([0.7, -50.0, 1.0]))
    module = quantized(model, IMAGES)
    scale = (read_by(nodes(module, "conv2d")[0])[0] or (0.0, 0))[0] * module.get_buffer("0.weight_scale").double()
    steps = module.get_parameter("0.bias").detach().double() / scale
    assert steps.abs().max() <= 2**30 * 1.001
    assert abs(float(steps[0].round() * scale[0]) - 0.7) < 1e-6


def test_weights_that_two_layers_share_are_stored_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x).relu())

    model = Twice().eval()
    module = quantized(model, IMAGES)
    assert [name for name in module.state_dict() if "scale" in name] == ["layer.weight_scale"]
    with torch.no_grad():
        assert signal_to_noise(model(IMAGES), module(IMAGES)) > 30


def test_the_argument_is_not_changed_to_the_last_bit(block: nn.Module) -> None:
    module = capture(block, (IMAGES[:2],))
    before, code = copy.deepcopy(module.state_dict()), module.code
    quantized(module, IMAGES)
    assert module.code == code and list(module.state_dict()) == list(before)
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in before.items())
    assert all(type(value) in (Tensor, nn.Parameter) for value in [*module.parameters(), *module.buffers()])
    assert not [key for node in module.graph.nodes for key in node.meta if "quantization" in key]


def test_modes_copies_and_pickles_are_those_of_any_captured_module(block: nn.Module) -> None:
    module = quantized(block, IMAGES)
    given = module(OTHERS)
    assert torch.equal(module.train().eval()(OTHERS), given) and not module.training
    assert torch.equal(copy.deepcopy(module)(OTHERS), given)
    assert capture(module, (IMAGES,)) is module


def test_a_file_keeps_every_bit(block: nn.Module, tmp_path: Path) -> None:
    module = quantized(block, IMAGES)
    save_program(module, (IMAGES[:2],), tmp_path / "int8.pt2")
    again, inputs = load_program(tmp_path / "int8.pt2")
    assert inputs is not None and torch.equal(inputs[0], IMAGES[:2])
    assert torch.equal(again(OTHERS), module(OTHERS))
    here, there = module.state_dict(), again.state_dict()
    assert here.keys() == there.keys() and all(torch.equal(here[name], there[name]) for name in here)
    counts = [[rounds(node) for node in each.graph.nodes if rounds(node)] for each in (module, again)]
    assert sorted(map(str, counts[0])) == sorted(map(str, counts[1]))
    save_program(again, (IMAGES[:2],), tmp_path / "again.pt2")
    assert torch.equal(load_program(tmp_path / "again.pt2")[0](OTHERS), module(OTHERS))


def test_the_batch_varies_as_before(block: nn.Module) -> None:
    module: Any = quantized(block, IMAGES[:2])
    assert [len(module(OTHERS[:count])) for count in (1, 3, 64)] == [1, 3, 64]


def test_every_value_is_described(block: nn.Module) -> None:
    for node in quantized(block, IMAGES).graph.nodes:
        if node.op != "output":
            assert isinstance(node.meta.get("val"), Tensor), node.name
            kind = rounds(node)
            if kind is not None:
                assert node.meta["val"].dtype is (torch.int8 if kind == "quantize_per_tensor" else torch.float32)


def test_state_begins_as_before() -> None:
    class Counting(nn.Module):
        count: Tensor

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Conv2d(3, 4, 3)
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            return self.layer(x) + self.count

    model = Counting().eval()
    module = quantized(model, IMAGES)
    assert module.get_buffer("count") == 0 and model.count == 0
    with torch.no_grad():
        for turn in (1, 2):
            assert (module(IMAGES) - model(IMAGES)).abs().max() < 0.1
            assert module.get_buffer("count") == turn


class TiedHead(nn.Module):
    """A last layer with the weights of the embedding, as language models have it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.middle = nn.Embedding(10, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 10, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.words(x)).relu())


class TiedAutoencoder(nn.Module):
    """Its way back has the weights of the way there, whose output channels lie along another axis."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, 4, 3, 3) * torch.tensor([0.01, 0.1, 1.0, 10.0]).view(4, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv_transpose2d(nn.functional.conv2d(x, self.weight).relu(), self.weight)


@pytest.mark.parametrize(
    ("model", "inputs"),
    [(TiedHead(), torch.randint(0, 10, (16, 5))), (TiedAutoencoder(), torch.randn(4, 4, 8, 8))],
)
def test_shared_weights_are_rounded_for_each_reader_by_itself(model: nn.Module, inputs: Tensor, tmp_path: Path) -> None:
    module = quantized(model, inputs)
    assert signal_to_noise(model(inputs), module(inputs)) > 25
    save_program(module, (inputs,), tmp_path / "small.pt2")
    assert torch.equal(load_program(tmp_path / "small.pt2")[0](inputs), module(inputs))
