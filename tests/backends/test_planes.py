"""Networks that are computed in planes, against PyTorch, here and on emulated boards; and which of them are."""

from __future__ import annotations

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
from tests.support.planes import InPlanes, zeros_in_rows
from tests.support.tools import needs


class Everything(nn.Module):
    """All that can lie in planes, and what lies between: a first layer, pooling with and without a border, strides, groups,
    sums, gates, joins, channels that are cut out, an operator of TVM's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first, self.wide = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 20, 3, padding=1)
        self.down, self.beside = nn.Conv2d(20, 24, 3, 2, padding=1), nn.Conv2d(20, 24, 1, 2)
        self.depthwise, self.grouped = (
            nn.Conv2d(24, 24, 3, padding=1, groups=24),
            nn.Conv2d(24, 16, 5, padding=2, groups=4),
        )
        self.gate, self.last = nn.Linear(24, 24), nn.Linear(17, 5)
        self.norm = nn.BatchNorm2d(24)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(torch.relu(self.wide(torch.relu(self.first(x)))), 3, 2, 1)
        x = F.silu(self.norm(self.down(x)) + self.beside(x))
        x = self.depthwise(x) * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]
        y = torch.cat(
            [self.grouped(x), F.avg_pool2d(x, 3, 1, 1), F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)], 1
        )[:, 3:20]
        return self.last(y.mean((2, 3))), F.gelu(F.hardtanh(y) - 2 * y.flip(1))


class Flattened(nn.Module):
    """Images whose pixels become channels, and small ones of several pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(5, 9, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(9, 6, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Linear(6 * 9, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.body(x).flatten(1))
        return y


CASES = {"everything": (Everything, (2, 3, 21, 26)), "flattened": (Flattened, (1, 5, 7, 7))}


def model(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    kind, shape = CASES[name]
    return zeros_in_rows(kind().eval(), 0.6, 4), torch.randn(shape)


@pytest.fixture
def in_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that can lies in planes, whatever it costs."""
    monkeypatch.setattr(compiling, "kernel_cost", lambda *_: (InPlanes(), None))


def families(built: Built) -> set[str]:
    return {variable.name_hint.rsplit("_", 1)[0] for variable in built.artifact.scheduled.functions}


def agree(got: Any, expected: Any) -> None:
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()) + 1e-7)


@pytest.mark.usefixtures("in_planes")
@pytest.mark.parametrize("name", list(CASES))
def test_networks_in_planes(name: str) -> None:
    module, image = model(name)
    built = compile(module, (image,), check=False)
    found = families(built)
    assert "gather" in found and not found & {"depthwise", "winograd"}
    assert ("plane_depthwise" in found) == (name == "everything")
    with torch.no_grad():
        expected = module(image)
    agree(
        built.run(image) if name == "everything" else [built.run(image)],
        expected if name == "everything" else [expected],
    )


@pytest.mark.usefixtures("in_planes")
@pytest.mark.parametrize(
    ("target", "runtime"),
    [
        pytest.param("rpi3", "static", marks=needs("qemu-aarch64", "aarch64-linux-gnu-g++")),
        pytest.param("rpi2", "none", marks=needs("qemu-arm", "arm-linux-gnueabihf-g++")),
    ],
)
def test_networks_in_planes_on_boards(target: str, runtime: Any, tmp_path: Path) -> None:
    module, image = model("everything")
    built = compile(module, (image,), target, check=False)
    assert {"gather", "plane_depthwise", "pool", "mean", "concat"} <= families(built)
    bundle = open_bundle(built.export(tmp_path / "bundle", runtime=runtime))
    with torch.no_grad():
        agree(run_bundle(bundle, (image,), bundle_emulator(bundle)), module(image))


def test_threads_share_tiles_and_channels() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, 2, padding=1)]
    module, image = zeros_in_rows(nn.Sequential(*layers).eval(), 0.9, 4), torch.randn(1, 32, 24, 24)
    one, two = (compile(module, (image,), threads=threads).run(image) for threads in (1, 2))
    assert torch.equal(one, two)


def test_zeros_decide_who_computes_a_layer() -> None:
    """By the model's formula: few of them change nothing."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 1)]
    module, image = nn.Sequential(*layers).eval(), torch.randn(1, 64, 28, 28)
    dense = families(compile(module, (image,), check=False))
    assert "gather" not in dense
    assert families(compile(zeros_in_rows(module, 0.2, 4), (image,), check=False)) == dense
    assert "gather" in families(compile(zeros_in_rows(module, 0.9, 4), (image,), check=False))
