"""Capturing leaves no trace in the model, whatever its forward keeps, also where capturing fails."""

from __future__ import annotations

import copy
from collections import deque
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, weight_norm

from reconvene.frontend.base.errors import CaptureError
from reconvene.frontend.capture import capture
from reconvene.frontend.snapshot import preserved

from ..support.untouched import untouched

IMAGE = torch.randn(1, 3, 8, 8)


@dataclass
class Cache:
    anchors: Tensor | None = None
    seen: list[Any] = field(default_factory=list)


class Slotted:
    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last: Tensor | None = None


class Keeping(nn.Module):
    """Keeps tensors in every kind of place that a forward can write to."""

    shape: Any = None
    shared: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)
        self.anchors = torch.empty(0)
        self.nested: dict[str, Any] = {"levels": [torch.zeros(2)], "more": {}}
        self.cache, self.slotted, self.queue, self.names = Cache(), Slotted(), deque([1, 2]), {"a"}
        self.frames = (torch.zeros(2), [])

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if self.shape != x.shape:
            self.anchors, self.shape = torch.arange(y.shape[-1], dtype=x.dtype) + 0.5, x.shape
        self.nested["levels"][:] = [y, y]
        self.nested["more"]["last"] = y
        self.cache.anchors, self.slotted.last = self.anchors, y
        self.cache.seen[:] = [y]
        self.queue[0] = 3
        self.names.add("b")
        self.frames[1][:] = [y]
        self.new = y
        Keeping.shared["last"] = y
        Keeping.shape_of_all = x.shape
        return y + self.anchors


class Branching(Keeping):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if y.sum() > 0 else -y


def test_nothing_that_forward_keeps_stays() -> None:
    model, x = Keeping(), IMAGE.clone()
    with untouched(model, x):
        capture(model, (x,))
    assert not hasattr(Keeping, "shape_of_all")
    assert Keeping.shared == {}
    assert model(x).shape == (1, 4, 8, 8)


def test_what_an_earlier_call_kept_stays() -> None:
    model = Keeping()
    kept = model(IMAGE) - model.layer(IMAGE)
    try:
        with untouched(model, IMAGE):
            capture(model, (IMAGE,))
        torch.testing.assert_close(model.anchors.expand_as(kept), kept)
    finally:
        Keeping.shared.clear()
        del Keeping.shape_of_all


def test_the_same_holds_where_capturing_fails() -> None:
    model = Branching()
    with untouched(model, IMAGE), pytest.raises(CaptureError):
        capture(model, (IMAGE,))
    with untouched(model, IMAGE), pytest.raises(CaptureError):
        capture(model, (torch.randn(1, 5, 8, 8),))


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    model[0].register_forward_hook(lambda module, args, result: result * 2)
    model[1].register_forward_pre_hook(lambda module, args: None)
    return model.train()


def partly_frozen() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)).train()
    model[1].eval()
    return model


def pruned() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    prune.random_unstructured(model[0], "weight", 0.5)
    return model


MODELS = {
    "hooks": hooked,
    "modes": partly_frozen,
    "pruned": pruned,
    "weight norm": lambda: nn.Sequential(weight_norm(nn.Conv2d(3, 4, 1))),
    "weight norm as a parametrisation": lambda: nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 4, 1))),
    "spectral norm": lambda: nn.Sequential(parametrizations.spectral_norm(nn.Conv2d(3, 4, 1))).train(),
    "lazy no more": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4)),
}


@pytest.mark.parametrize("name", MODELS)
def test_modes_hooks_and_parametrisations_are_as_they_were(name: str) -> None:
    model = MODELS[name]()
    copied = copy.deepcopy(model) if name not in ("weight norm", "pruned") else None
    with untouched(model, IMAGE):
        module = capture(model, (IMAGE,))
    if copied is not None:
        assert torch.equal(module(IMAGE), copied.eval()(IMAGE))
    assert torch.equal(module(IMAGE), model.eval()(IMAGE))


def test_inputs_are_as_they_were() -> None:
    class Popping(nn.Module):
        def forward(self, batch: dict[str, Tensor], parts: list[Tensor]) -> Tensor:
            batch["more"] = batch.pop("image") * 2
            parts[0] += 1
            return batch["more"] + parts.pop()

    batch, parts = {"image": IMAGE.clone()}, [IMAGE.clone()]
    with untouched(Popping(), (batch, parts)):
        capture(Popping(), (batch, parts))


def test_values_that_are_written_in_place_come_back() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1))
            self.history = torch.zeros(3)

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            self.history[0] = 5
            return x + self.count

    model = Counting()
    with untouched(model, IMAGE), preserved(model, IMAGE):
        model(IMAGE)
