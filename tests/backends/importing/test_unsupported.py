"""What cannot be compiled is refused in one line that names the operator that the model calls, and where."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reconvene
from reconvene.backends.compile import compile
from reconvene.backends.importing import unsupported
from reconvene.backends.importing.importer import import_module
from reconvene.backends.importing.unsupported import culprit
from reconvene.frontend.base.errors import CaptureError


class Determinant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.det(x)


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x.double() @ x.double()).float()


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn(4)


class Dice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.bernoulli(torch.full_like(x, 0.5))


class Raised(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.long() ** x.long()


REFUSED = {
    "which TVM does not have": (Determinant, "aten.linalg_det"),
    "in a type that its kernels do not take": (Doubled, "aten.matmul"),
    "random numbers": (Noise, "aten.randn"),
    "random bits": (Dice, "aten.bernoulli"),
    "which we refuse with advice": (Raised, "aten.pow"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_an_operator_is_named_with_its_line(case: tuple[Callable[[], nn.Module], str]) -> None:
    build, operator = case
    with pytest.raises(CaptureError) as caught:
        reconvene.compile(build(), (torch.rand(4, 4),))
    text = str(caught.value)
    line = int(re.search(r"test_unsupported\.py:(\d+)", text)[1])  # type: ignore[index]
    assert line == build.forward.__code__.co_firstlineno + 1  # type: ignore[attr-defined]
    assert f"'{operator}' at" in text and "; " in text and "\n" not in text


def test_models_are_named_by_their_class_and_graphs_are_not() -> None:
    with pytest.raises(CaptureError, match=r"cannot compile Noise: 'aten.randn'"):
        compile(Noise(), (torch.rand(4, 4),))
    with pytest.raises(CaptureError, match=r"cannot compile the model: 'aten.randn'"):
        reconvene.compile(Noise(), (torch.rand(4, 4),))


class Chain(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu().tanh().relu().sigmoid()


@pytest.mark.parametrize("broken", ["aten.tanh.default", "aten.sigmoid.default"])
def test_an_operator_that_fails_by_itself_is_found(broken: str) -> None:
    tried: list[str] = []

    def build(part: Any, inputs: tuple[Any, ...]) -> None:
        (name,) = (str(node.target) for node in part.graph.nodes if node.op == "call_function")
        assert part(*inputs).shape == (2, 3)
        tried.append(name)
        if name == broken:
            raise RuntimeError(name)

    program = import_module(Chain().eval(), (torch.rand(2, 3),)).decomposed
    found = culprit(program, build).node
    assert found is not None and str(found.target) == broken
    assert "aten.relu.default" not in tried, "what is called most is tried last"
    tried.clear()
    with suppress(RuntimeError):
        culprit(program, lambda part, inputs: build(part, inputs) if "relu" in str(part.code) else None)
    assert tried == ["aten.relu.default"], "equal calls are tried once"
    search = culprit(program, lambda part, inputs: None)
    assert search.node is None and search.finding == "on none of its operators by itself"


def test_a_search_ends_and_says_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsupported, "_SEARCH_SECONDS", -1.0)
    search = culprit(import_module(Chain().eval(), (torch.rand(2, 3),)).decomposed, lambda part, inputs: None)
    assert search.node is None
    assert search.finding == "on none of 0 of its 3 kinds of calls that there was time to try"
