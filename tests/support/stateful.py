"""Small models that keep state in buffers, in the ways that people write it. All take float32 3x4."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["STATEFUL", "Keeping", "chain", "frames"]


class Keeping(nn.Module):
    """A function of the module and its inputs as a module that holds `buffers`."""

    def __init__(self, function: Callable[..., Any], **buffers: Tensor | None) -> None:
        super().__init__()
        assert isinstance(function, FunctionType)
        # torch.export keeps the lines of functions of that name only.
        code = function.__code__.replace(co_name="forward")
        forward = FunctionType(code, function.__globals__, "forward", function.__defaults__, function.__closure__)
        self.__class__ = type("Keeping", (Keeping,), {"forward": forward})
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)
        self.eval()


def frames(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 4, generator=generator) for _ in range(count)]


def counter(model: Any, x: Tensor) -> Tensor:
    model.calls.add_(1)
    return x * model.calls


def streaming(model: Any, x: Tensor) -> Tensor:
    seen = torch.cat([model.cache, x])
    model.cache.copy_(seen[-2:])
    return seen[:-2] + seen[1:-1] + seen[2:]


def slices(model: Any, x: Tensor) -> Tensor:
    model.cache[:, 2:] = model.cache[:, :2]
    model.cache[:, :2] = x[:2, :2]
    return model.cache * 2


def assigned(model: Any, x: Tensor) -> Tensor:
    model.average = model.average * 0.5 + x.mean(0) * 0.5
    return x - model.average


def assigned_twice(model: Any, x: Tensor) -> Tensor:
    model.average = model.average + x[0]
    y = x * model.average
    model.average.mul_(0.5)
    model.average = model.average + y[1]
    return y


def rotated(model: Any, x: Tensor) -> Tensor:
    old = model.now
    model.now = x[0] + model.now
    model.before = old
    return x + model.before


def swapped(model: Any, x: Tensor) -> Tensor:
    model.now, model.before = model.before, model.now
    return x * model.now + model.before


def delayed(model: Any, x: Tensor) -> Tensor:
    y = model.kept.clone()
    model.kept.copy_(x)
    return y


def given_out(model: Any, x: Tensor) -> Tensor:
    model.kept.copy_(x.relu() + model.kept)
    return model.kept


def indexed(model: Any, x: Tensor) -> Tensor:
    model.kept[torch.tensor([0, 2, 2]), torch.tensor([3, 1, 0])] += x[0, :3]
    return model.kept * 2


def viewed(model: Any, x: Tensor) -> Tensor:
    row = model.kept[1]
    row.add_(x[0])
    return model.kept.view(4, 3).relu()


def written_twice(model: Any, x: Tensor) -> Tensor:
    model.kept.add_(1)
    y = x * model.kept
    model.kept.mul_(0.5)
    return y + model.kept


def flagged(model: Any, x: Tensor) -> Tensor:
    y = torch.where(model.begun, x, x * 10)
    model.begun.fill_(True)
    return y


def two_names() -> nn.Module:
    def forward(model: Any, x: Tensor) -> Tensor:
        model.first.add_(x[0])
        return x + model.second

    model = Keeping(forward, first=torch.zeros(4))
    model.register_buffer("second", model.first)
    return model


def used_twice() -> nn.Module:
    layer = Keeping(counter, calls=torch.zeros(1))
    return nn.Sequential(layer, nn.ReLU(), layer).eval()


def gated() -> nn.Module:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(4, 4)
            self.register_buffer("hidden", torch.full((3, 4), 0.5), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            self.hidden = self.cell(x, self.hidden)
            return self.hidden * 2

    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), Cell()).eval()


def _cases() -> dict[str, Callable[[], nn.Module]]:
    zeros = torch.zeros
    kept: dict[str, tuple[Callable[..., Tensor], dict[str, Tensor]]] = {
        "counter": (counter, {"calls": zeros(1)}),
        "integer counter": (counter, {"calls": zeros((), dtype=torch.int64)}),
        "streaming": (streaming, {"cache": zeros(2, 4)}),
        "slices": (slices, {"cache": torch.arange(8.0).view(2, 4)}),
        "assigned": (assigned, {"average": torch.ones(4)}),
        "assigned twice": (assigned_twice, {"average": zeros(4)}),
        "rotated": (rotated, {"now": zeros(4), "before": torch.ones(4)}),
        "swapped": (swapped, {"now": torch.arange(4.0), "before": torch.ones(4)}),
        "delayed": (delayed, {"kept": zeros(3, 4)}),
        "given out": (given_out, {"kept": zeros(3, 4)}),
        "indexed": (indexed, {"kept": zeros(3, 4)}),
        "viewed": (viewed, {"kept": torch.ones(3, 4)}),
        "written twice": (written_twice, {"kept": zeros(4)}),
        "flagged": (flagged, {"begun": torch.tensor(False)}),
    }

    def alone(name: str) -> Callable[[], nn.Module]:
        return lambda: Keeping(kept[name][0], **{key: value.clone() for key, value in kept[name][1].items()})

    cases: dict[str, Callable[[], nn.Module]] = {name: alone(name) for name in kept}
    for name in ("assigned", "assigned twice", "rotated", "swapped"):
        cases[f"{name} in a layer"] = lambda name=name: nn.Sequential(nn.ReLU(), alone(name)()).eval()  # type: ignore[misc]
    return cases | {"two names": two_names, "used twice": used_twice, "gated": gated}


STATEFUL = _cases()
"""By name, functions that make the model anew."""


def chain() -> nn.Module:
    """Several of them, one after the other: floats that begin with zeros and others, whole numbers and a flag."""
    return nn.Sequential(*(STATEFUL[name]() for name in ("gated", "rotated", "integer counter", "flagged", "delayed")))
