"""What forward or a hook keeps outside of the model is as it was after a capture, and refused where results depend on it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reconvene
from reconvene.frontend.base.errors import CaptureError

SUMS: dict[str, Tensor] = {}
SEEN: list[Tensor] = []
GRIDS: dict[int, Tensor] = {}


class Summing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        SUMS["sum"] = SUMS.get("sum", torch.zeros_like(x)) + x
        return SUMS["sum"] * 2


def remembered(x: Tensor) -> Tensor:
    SEEN.append(x)
    return SEEN[0] + x


class ByAnother(nn.Module):
    """The list is written by a function that forward calls."""

    def forward(self, x: Tensor) -> Tensor:
        return remembered(x)


class Cached(nn.Module):
    """Keeps what is the same in every call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-1]
        if size not in GRIDS:
            GRIDS[size] = torch.arange(size, dtype=x.dtype)
        y: Tensor = self.layer(x) + GRIDS[size]
        return y


@pytest.fixture(autouse=True)
def _empty() -> None:
    for kept in (SUMS, SEEN, GRIDS):
        kept.clear()


@pytest.mark.parametrize(("model", "name"), [(Summing, "SUMS"), (ByAnother, "SEEN")])
def test_state_outside_is_refused_by_name(model: type[nn.Module], name: str) -> None:
    with pytest.raises(CaptureError, match=f"'{name}', which lies outside of {model.__name__}.*register_buffer"):
        reconvene.compile(model().eval(), (torch.randn(2, 3),))
    assert not SUMS and not SEEN


def test_a_cache_outside_is_no_state_and_left_alone() -> None:
    model, x = Cached().eval(), torch.randn(1, 3, 4, 4)
    built = reconvene.compile(model, (x,))
    assert not GRIDS
    torch.testing.assert_close(built.run(x), model(x))
    assert type(GRIDS[4]) is Tensor


def remembering() -> Callable[[int], Tensor]:
    """A function with a memory of its own."""
    known: dict[int, Tensor] = {}

    def grid(size: int) -> Tensor:
        if size not in known:
            known[size] = torch.arange(size, dtype=torch.float32)
        return known[size]

    return grid


class Closures(nn.Module):
    """Two functions as attributes, whose memories have one name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)
        self.rows, self.columns = remembering(), remembering()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x) + self.rows(x.shape[-2])[:, None] + self.columns(x.shape[-1])
        return y


@functools.cache
def halves(size: int) -> Tensor:
    return torch.arange(size) / 2


class CachedFunctions(Closures):
    """What ``functools`` remembers: of a method, of an attribute, and of a function that a method calls."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = functools.lru_cache(remembering())

    @functools.lru_cache(maxsize=4)  # noqa: B019
    def grid(self, size: int) -> Tensor:
        return torch.arange(size, dtype=torch.float32)

    def anchors(self, size: int) -> Tensor:
        return halves(size) + self.grid(size)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x) + self.kept(x.shape[-1]) + self.anchors(x.shape[-1])
        return y


class ByAMethod(Closures):
    """The dict is reached by a method that forward calls."""

    def grid(self, size: int) -> Tensor:
        if size not in GRIDS:
            GRIDS[size] = torch.arange(size, dtype=torch.float32)
        return GRIDS[size]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x) + self.grid(x.shape[-1])
        return y


@pytest.mark.parametrize("kind", [Closures, CachedFunctions, ByAMethod])
def test_functions_with_memories_remember_no_stand_ins(kind: type[nn.Module]) -> None:
    halves.cache_clear()
    model, x = kind(), torch.randn(1, 3, 4, 4)
    module = reconvene.capture(model, x)
    assert not GRIDS
    found = model.eval()(x)
    assert type(found) is Tensor
    torch.testing.assert_close(module(x), found)
    again = reconvene.capture(model, x)  # Now that they remember something.
    torch.testing.assert_close(again(x), found)
    assert type(model(x)) is Tensor


def test_what_a_hook_keeps_is_as_it_was() -> None:
    store: dict[str, Any] = {"before": 1}
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    model[0].register_forward_hook(lambda module, inputs, output: store.update(features=output))
    module = reconvene.prune(model, (torch.randn(2, 4),)).module
    assert store == {"before": 1}
    x = torch.randn(2, 4)
    model(x)
    assert type(store["features"]) is Tensor and module(x).shape == (2, 2)


def test_a_failure_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(CaptureError, match="does not run on the example input"):
        reconvene.capture(nn.Conv2d(3, 4, 1), (torch.randn(1, 3, 4, 4, dtype=torch.float16),))
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_batch_that_cannot_vary_is_nothing_to_report(caplog: pytest.LogCaptureFixture) -> None:
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(1, -1) @ x.new_ones(12, 3)

    module = reconvene.capture(Flat(), (torch.randn(3, 4),))
    assert module.meta["input_sizes"].reasons
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
