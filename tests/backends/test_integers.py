"""Quantised networks, compiled: the bits that `passes.integers` defines, on this machine and on boards."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzing.quantised import QuantisedConv, QuantisedLinear, QuantisedTransposed, coded, of
from torch import Tensor, nn
from torch.nn import functional as F

import reconvene
from reconvene.backends.bundles.execution import bundle_emulator, run_bundle
from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.compile import compile
from reconvene.backends.importing.importer import import_module
from reconvene.backends.kernels.codes import CODES
from reconvene.backends.kernels.scalar import FUNCTIONS
from reconvene.backends.kernels.tiles import Machine
from reconvene.frontend.base.errors import CheckError, InputError
from tests.support.matrices import part
from tests.support.tools import needs

IMAGE = torch.randn(2, 3, 19, 22, generator=torch.Generator().manual_seed(0))
FINE = (0.03, -5)


class Everything(nn.Module):
    """Layers of all kinds on codes, what moves codes, and what is computed in float32 between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.depthwise = (
            QuantisedConv(3, 20, 3, padding=1),
            QuantisedConv(20, 20, 3, padding=1, groups=20, stride=2),
        )
        self.point, self.again = QuantisedConv(20, 28, 1), QuantisedConv(28, 28, 3, padding=1)
        self.grouped, self.wide = (
            QuantisedConv(28, 28, 3, padding=1, groups=4),
            QuantisedConv(28, 28, 5, padding=2, groups=28),
        )
        self.gate, self.tokens, self.last = QuantisedLinear(28, 28), QuantisedLinear(28, 12), QuantisedLinear(56, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = coded(F.relu6(self.first(coded(x, 0.02, 7))), 0.02, -128)
        x = coded(torch.relu(self.depthwise(F.max_pool2d(x, 3, 2, 1))), 0.01, -128)
        x = coded(self.point(x), 0.01, 13)
        y = coded(F.hardswish(coded(self.again(x), 0.02, 1)), 0.01, -90)
        x = coded(torch.relu(x + y), 0.02, -128)
        z = coded(self.wide(coded(F.pad(self.grouped(x), (1, 0, 0, 1)), 0.015, -3)), 0.02, 4)
        gate = coded(torch.sigmoid(coded(self.gate(coded(z.mean((2, 3)), 0.005, 2)), 0.02, 5)), 1 / 256, -128)
        z = coded(z * gate[:, :, None, None], 0.01, 9)
        tokens = self.tokens(coded(z.flatten(2).transpose(1, 2), 0.01, 9))
        both = torch.cat([coded(F.avg_pool2d(z, 3, 1, 1), 0.012, -7), coded(F.pad(x, (1, 0, 0, 1)), 0.012, -7)], 1)
        both = F.channel_shuffle(coded(both, 0.012, -7), 2)
        return self.last(coded(F.adaptive_avg_pool2d(both, 1), 0.004, 0).flatten(1)), tokens.softmax(-1)


def made() -> nn.Module:
    torch.manual_seed(0)
    return Everything().eval()


def reference(module: nn.Module, *inputs: Tensor) -> Any:
    program = import_module(module, inputs).integers
    assert program is not None
    with torch.no_grad():
        return program.module(*inputs)


def test_every_bit_is_the_references() -> None:
    module = made()
    built = reconvene.compile(module, (IMAGE,), dtype="int8")
    logits, tokens = built.run(IMAGE)
    wanted, others = reference(module, IMAGE)
    assert torch.equal(logits, wanted)
    torch.testing.assert_close(tokens, others, rtol=0, atol=1e-6)
    with torch.no_grad():  # The graph that it was made of sums in float32, and rounds elsewhere.
        assert float((logits - module(IMAGE)[0]).abs().max()) < 0.02 * float(wanted.abs().max())


def test_codes_that_were_moved_up_are_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As machines want them whose products are of unsigned by signed bytes."""
    module = made()
    wanted, _ = reference(module, IMAGE)
    monkeypatch.setattr(Machine, "codes", property(lambda machine: "uint8"))
    assert torch.equal(reconvene.compile(module, (IMAGE,), dtype="int8").run(IMAGE)[0], wanted)


class Further(nn.Module):
    """Bytes that are taken, lines, what is known beside codes, functions of channels, and moves by place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.line = QuantisedConv(3, 20, 3, padding=1), QuantisedConv(20, 20, 3, axes=1, padding=1)
        self.alone, self.tokens = QuantisedConv(20, 20, 5, axes=1, padding=2, groups=20), QuantisedLinear(20, 20)
        self.position, self.slope = torch.randn(1, 11, 20), torch.rand(20)
        self.register_buffer("shift", torch.randn(20, 1, 1))
        self.up = QuantisedTransposed(20, 12, 3, groups=4, stride=2, padding=1, output_padding=1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        mean, deviation = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
        x = coded((image.permute(0, 3, 1, 2).float() / 255 - mean) / deviation, 0.02, 7)
        x = coded(F.prelu(coded(self.first(x), 0.02, 3), self.slope), 0.02, -40)
        x = coded(torch.tanh(x * self.shift) + 0.25, 0.01, -30)
        x = coded(x - coded(x.mean((2, 3), keepdim=True), 0.003, 1), 0.015, 2)
        x = coded(x * torch.linspace(-1, 1, 5).view(5, 1), 0.015, 2)
        big = coded(F.interpolate(x, size=(7, 4)) + self.shift, 0.03, 3)
        big = coded(F.pad(big, (1, 1, 0, 1), mode="reflect"), 0.03, 3)
        line = coded(torch.relu(self.line(x.flatten(2))), 0.02, -128)
        line = coded(self.alone(F.max_pool1d(line, 3, 2, 1)), 0.02, 4)
        line = coded(F.avg_pool1d(line, 2), 0.02, 4)
        tokens = coded(line.transpose(1, 2)[:, :1] + self.position, 0.03, 1)
        big = coded(self.up(big), 0.03, 3)
        return coded(big.mean(1), 0.01, 0), self.tokens(coded(torch.sub(tokens, tokens.flip(1), alpha=0.5), 0.04, 0))


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_every_bit_of_what_else_is_on_codes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module, image = Further().eval(), torch.randint(0, 256, (2, 5, 5, 3), dtype=torch.uint8)
    program = import_module(module, (image,)).integers
    assert program is not None and program.floats == () and program.layers == 5
    monkeypatch.setattr(Machine, "codes", property(lambda machine: kind))
    built = compile(module, (image,), dtype="int8", check=False)
    for x in (image, torch.zeros_like(image)):
        with torch.no_grad():
            wanted = program.module(x)
        assert all(torch.equal(found, other) for found, other in zip(built.run(x), wanted, strict=True))


def test_codes_that_a_model_takes_and_gives_keep_their_type(monkeypatch: pytest.MonkeyPatch) -> None:
    class Coded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = QuantisedConv(3, 9, 3, padding=1)

        def forward(self, codes: Tensor) -> Tensor:
            x = torch.ops.quantized_decomposed.dequantize_per_tensor(codes, 0.02, 7, -128, 127, torch.int8)
            return torch.ops.quantized_decomposed.quantize_per_tensor(self.layer(x), 0.03, 4, -128, 127, torch.int8)

    codes = torch.randint(-128, 128, (1, 3, 7, 8), dtype=torch.int8)
    module = Coded().eval()
    wanted = reference(module, codes)
    for kind in ("int8", "uint8"):
        monkeypatch.setattr(Machine, "codes", property(lambda machine, kind=kind: kind))
        found = reconvene.compile(module, (codes,), dtype="int8").run(codes)
        assert found.dtype == torch.int8 and torch.equal(found, wanted)


@needs("qemu-aarch64", "aarch64-linux-gnu-g++")
@pytest.mark.parametrize("target", ["rpi4", "rpi5"])
def test_on_64_bit_boards(target: str, tmp_path: Path) -> None:
    on_board(target, "static", tmp_path)


@needs("qemu-arm", "arm-linux-gnueabihf-g++")
def test_on_a_32_bit_board(tmp_path: Path) -> None:
    on_board("rpi2", "static", tmp_path)


def on_board(target: str, runtime: Any, folder: Path) -> None:
    module = made()
    wanted, _ = reference(module, IMAGE)
    built = reconvene.compile(module, (IMAGE,), target, dtype="int8", check=False)
    bundle = open_bundle(built.export(folder / "bundle", runtime=runtime))
    assert torch.equal(torch.as_tensor(run_bundle(bundle, (IMAGE,), bundle_emulator(bundle))[0]), wanted)


def test_tvms_own_pipeline_computes_on_what_codes_stand_for() -> None:
    module = made()
    built = compile(module, (IMAGE,), pipeline="tvm-default")
    with torch.no_grad():
        assert float((built.run(IMAGE)[0] - module(IMAGE)[0]).abs().max()) < 0.02


def test_another_type_is_refused() -> None:
    with pytest.raises(InputError, match="the model is quantised, and computes on codes; leave out dtype='float16'"):
        reconvene.compile(made(), (IMAGE,), "rpi5", dtype="float16")


def test_a_bit_that_is_off_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is computed in float32, the comparison leaves no room."""
    module, x = of(torch.add, FINE, (0.01, 3)), torch.randn(1, 4, 6, 8)
    reconvene.compile(module, (x, x))
    exact = CODES["code_sum"]
    monkeypatch.setitem(FUNCTIONS, "code_sum", lambda vectors, factor, *rest: exact(vectors, factor + 4096, *rest))
    with pytest.raises(CheckError, match="does not compute what the model does"):
        reconvene.compile(module, (x, x), cache=False)


ODD = list(itertools.product(((1, 1), (2, 3), (13, 1)), (1, 5, 16, 33), (1, 3)))


@pytest.mark.parametrize(("size", "channels", "kernel"), part(ODD, 5))
def test_odd_sizes(size: tuple[int, int], channels: int, kernel: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = QuantisedConv(channels, 7, kernel, padding=kernel // 2)
            self.two = QuantisedConv(7, channels, 3, padding=1, stride=2)

        def forward(self, x: Tensor) -> Tensor:
            x = coded(torch.relu(self.one(coded(x, *FINE))), 0.02, -128)
            return coded(self.two(x), 0.01, 3, -127, 120)

    torch.manual_seed(0)
    module, x = Net().eval(), 2 * torch.randn(3, channels, *size)
    assert torch.equal(reconvene.compile(module, (x,), dtype="int8").run(x), reference(module, x))


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.point, self.wide = QuantisedConv(64, 64, 1), QuantisedConv(64, 64, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = coded(torch.relu(self.point(coded(x, *FINE))), 0.02, -128)
        return coded(torch.relu(self.wide(x)), 0.02, -128)


def test_layers_that_are_faster_in_float_stay_there_where_codes_have_no_instructions() -> None:
    """LLVM's Cortex-A72 adds eight products of codes a cycle, and of 3x3 convolutions Winograd's algorithm computes more."""
    torch.manual_seed(0)
    module, x = Deep().eval(), torch.randn(1, 64, 28, 28)
    mixed, codes = (reconvene.compile(module, (x,), "rpi4", dtype=dtype) for dtype in ("float32", "int8"))
    assert [layer.dtype for layer in mixed.layers] == ["int8", "float32"]
    assert [layer.name for layer in mixed.layers] == ["point.codes", "wide.codes"]
    assert mixed.floats and mixed.floats[0].startswith("conv2d_1 at ")
    assert [layer.dtype for layer in codes.layers] == ["int8", "int8"] and not codes.floats
    assert not reconvene.compile(module, (x,), "rpi5", check=False).floats


def test_codes_are_asked_of_what_has_none() -> None:
    with pytest.raises(
        InputError, match="the model is not quantised, so it has no codes to compute on; quantise it first"
    ):
        reconvene.compile(nn.Linear(3, 3), (torch.ones(1, 3),), dtype="int8")
