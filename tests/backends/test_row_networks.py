"""Networks whose layers are computed from few weights, vectors along channels: against PyTorch, here and on emulated boards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import reconvene.backends.compile as compiling
from reconvene.backends.built import Built
from reconvene.backends.bundles.execution import bundle_emulator, run_bundle
from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.compile import compile
from reconvene.backends.kernels import rows_family
from reconvene.backends.kernels.base import Spec
from tests.support.planes import zeros_in_rows
from tests.support.tools import needs


class FromWeights:
    """Costs by which every layer that can is computed from its weights alone; one output after the other in every second."""

    def __call__(self, layers: Sequence[Sequence[Spec]]) -> list[list[float]]:
        preferred = {"rows": 1.0, "dots": 2.0}
        return [[abs(preferred.get(spec.family, 1e6) - 1 - i % 2) for spec in row] for i, row in enumerate(layers)]


class Layers(nn.Module):
    """Layers of one pixel and of few: a sum, a gate, activations, a batch, and recurrent ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(40, 48), nn.Linear(48, 48)
        self.gate, self.last = nn.Linear(40, 48), nn.Linear(48, 37)
        self.point, self.window = nn.Conv2d(10, 24, 1), nn.Conv2d(24, 20, 3, 2, padding=1)
        self.recurrent = nn.GRU(20, 24, batch_first=True)

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        y = F.relu(self.first(x))
        y = y + torch.tanh(self.second(y)) * torch.sigmoid(self.gate(x))
        z = F.relu(self.window(F.silu(self.point(image))))
        return self.last(y), self.recurrent(z.flatten(2).transpose(1, 2))[0]


def model(rows: int, batch: int = 1) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    module: Any = zeros_in_rows(Layers().eval(), 0.8, rows)
    zeros_in_rows(module.last, 0.7, 1)
    for name, weight in module.named_parameters():
        if name.startswith("recurrent.weight"):
            weight.data *= (torch.rand(9, weight.shape[1]) > 0.7).repeat_interleave(8, 0)
    return module, (torch.randn(batch, 40), torch.randn(batch, 10, 3, 3))


@pytest.fixture
def from_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_family, "_TRIALS", 99)
    monkeypatch.setattr(compiling, "kernel_cost", lambda *_: (FromWeights(), None))


def families(built: Built) -> set[str]:
    return {variable.name_hint.rsplit("_", 1)[0] for variable in built.artifact.scheduled.functions}


def agree(got: Any, expected: Any) -> None:
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()) + 1e-7)


@pytest.mark.usefixtures("from_weights")
@pytest.mark.parametrize(("rows", "batch", "threads"), [(16, 1, 1), (8, 3, 2), (1, 1, 1)])
def test_networks(rows: int, batch: int, threads: int) -> None:
    module, inputs = model(rows, batch)
    built = compile(module, inputs, threads=threads, check=False)
    assert families(built) & {"rows", "dots"} and "convolution" not in families(built)
    with torch.no_grad():
        agree(built.run(*inputs), module(*inputs))


@pytest.mark.usefixtures("from_weights")
@pytest.mark.parametrize(
    ("target", "runtime"),
    [
        pytest.param("rpi3", "static", marks=needs("qemu-aarch64", "aarch64-linux-gnu-g++")),
        pytest.param("rpi2", "none", marks=needs("qemu-arm", "arm-linux-gnueabihf-g++")),
        pytest.param("cortex-m7", "none", marks=needs("qemu-system-arm", "arm-none-eabi-g++")),
    ],
)
def test_networks_on_boards(target: str, runtime: Any, tmp_path: Path) -> None:
    module, inputs = model(4)
    built = compile(module, inputs, target, check=False)
    wanted = {"rows"} if target == "cortex-m7" else {"rows", "dots"}
    assert wanted <= families(built) and "convolution" not in families(built)
    bundle = open_bundle(built.export(tmp_path / "bundle", runtime=runtime))
    with torch.no_grad():
        agree(run_bundle(bundle, inputs, bundle_emulator(bundle)), module(*inputs))


def test_zeros_decide_who_computes_a_layer() -> None:
    """By the model's formula: few of them change nothing, and other weights have the same code."""
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256)).eval(), (torch.randn(1, 256),)
    assert families(compile(module, x, check=False)) & {"rows", "dots", "convolution"} == {"convolution"}
    assert "rows" in families(compile(zeros_in_rows(module, 0.7, 16), x))
    torch.manual_seed(1)
    other = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256)).eval()
    assert "dots" in families(compile(zeros_in_rows(other, 0.9, 1), x))


def test_weights_of_other_places_have_the_same_code() -> None:
    x = (torch.randn(1, 64),)

    def code(seed: int) -> str:
        torch.manual_seed(0)
        layer = nn.Linear(64, 64, bias=False).eval()
        kept = torch.randperm(16, generator=torch.Generator().manual_seed(seed))[:3]
        layer.weight.data *= torch.isin(torch.arange(64) % 16, kept)
        return str(compile(layer, x, check=False).artifact.scheduled.script())

    assert code(1) == code(2)


def test_steps_of_a_recurrent_layer_share_their_weights() -> None:
    torch.manual_seed(0)
    module, x = nn.GRU(16, 32, batch_first=True).eval(), torch.randn(1, 5, 16)
    for name, weight in module.named_parameters():
        if name.startswith("weight"):
            weight.data *= (torch.rand(12, weight.shape[1]) > 0.7).repeat_interleave(8, 0)
    built = compile(module, (x,), check=False)
    assert {layer.calls for layer in built.layers if layer.name == "weight_hh_l0"} == {5}
    packed = 4 * sum(weight.numel() for weight in module.parameters())
    assert built.memory.weights_bytes < packed
    with torch.no_grad():
        agree(built.run(x), module(x))
