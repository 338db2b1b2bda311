"""Winograd's algorithm: its matrices by the definition, its kernels against PyTorch, and the bound on its error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reconvene.backends.compile import compile
from reconvene.backends.kernels.winograd import transform, transformed_weights
from reconvene.backends.machines.targets import find_target
from reconvene.backends.machines.threads import available_threads
from reconvene.frontend.base.errors import InputError

BOUND = 1e-5
"""Largest difference from float64, relative to the largest output, that any size may have."""


@pytest.mark.parametrize("size", [2, 4])
def test_matrices_compute_a_correlation(size: int) -> None:
    """``A^T ((G g) * (B^T d))`` is the correlation of every signal ``d`` with every filter ``g``."""
    generator = np.random.default_rng(0)
    moves = transform(size)
    source, result = moves.source[1] @ moves.source[0], moves.result[1] @ moves.result[0]
    for _ in range(5):
        signal, taps = generator.normal(size=size + 2), generator.normal(size=3)
        got = result @ ((moves.weights @ taps) * (source @ signal))
        np.testing.assert_allclose(got, np.correlate(signal, taps, "valid"), atol=1e-12)
    taps = generator.normal(size=(2, 3, 3, 3))
    one = moves.weights @ taps[1, 2] @ moves.weights.T
    np.testing.assert_allclose(transformed_weights(taps, size)[1, 2], one, atol=1e-12)


def difference(module: nn.Module, x: torch.Tensor, **options: object) -> float:
    """From float64, relative to the largest output."""
    module.eval()
    with torch.no_grad():
        got = compile(module, (x,), **options).run(x)  # type: ignore[arg-type]
        expected = module.double()(x.double())
        module.float()
    assert got.shape == expected.shape
    return float((got - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("winograd", ["2x2", "4x4"])
@pytest.mark.parametrize(
    ("channels", "padding", "batch", "size"),
    [
        ((20, 33), 1, 1, (8, 8)),
        ((16, 16), 1, 3, (9, 7)),
        ((37, 50), 0, 1, (7, 11)),
        ((5, 18), 1, 1, (4, 4)),
        ((24, 16), 2, 2, (5, 6)),
        ((32, 48), 1, 1, (30, 41)),
    ],
)
def test_against_pytorch(
    winograd: str, channels: tuple[int, int], padding: int, batch: int, size: tuple[int, int]
) -> None:
    """Sizes that no tile divides, several images, and an epilogue that reads another image."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, channels[0], 1)
            self.body = nn.Conv2d(*channels, 3, padding=padding)
            self.side = nn.Conv2d(channels[0], channels[1], 3, padding=padding)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = F.relu(self.first(x))
            return F.relu(self.body(y) + self.side(y))

    torch.manual_seed(0)
    assert difference(Net(), torch.randn(batch, 3, *size), winograd=winograd, choose="default") < BOUND


@pytest.mark.parametrize(("winograd", "least"), [("2x2", 5e-7), ("4x4", 5e-7)])
@pytest.mark.parametrize("channels", [64, 512])
def test_error_of_layers_of_real_size(winograd: str, least: float, channels: int) -> None:
    """Within the bound at the widths of ResNets; and not exactly right, or something else was measured."""
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, 32, 3, padding=1)
    module = nn.Sequential(nn.ReLU(), layer)
    found = difference(module, torch.randn(1, channels, 14, 14), winograd=winograd, choose="default")
    assert least / 100 < found < BOUND


@pytest.mark.parametrize("winograd", ["2x2", "4x4"])
@pytest.mark.parametrize(("blocks", "cores"), [(1, 2), (1, 4), (2, 4), (3, 2), (5, 4)])
def test_threads_do_not_share_their_work_arrays(winograd: str, blocks: int, cores: int) -> None:
    """With fewer blocks of channels than workers, or blocks that do not divide among them, nobody does another's work again."""
    torch.manual_seed(0)
    host = replace(find_target("host"), cores=cores)
    layer = nn.Conv2d(blocks * host.lanes, 3 * host.lanes, 3, padding=1).eval()
    x = torch.randn(1, blocks * host.lanes, 16, 16)
    built = compile(layer, (x,), host, threads=min(2, available_threads()), winograd=winograd)  # type: ignore[arg-type]
    expected = layer(x).detach()
    first = built.run(x)
    torch.testing.assert_close(first, expected, rtol=0, atol=BOUND * float(expected.abs().max()))
    assert all(torch.equal(built.run(x), first) for _ in range(200))


def test_settings_are_checked() -> None:
    x = (torch.randn(1, 3, 8, 8),)
    with pytest.raises(InputError, match="unknown winograd setting '6x6'; choose auto, off, 2x2, 4x4"):
        compile(nn.ReLU(), x, winograd="6x6")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown way to choose 'best'"):
        compile(nn.ReLU(), x, choose="best")  # type: ignore[arg-type]
