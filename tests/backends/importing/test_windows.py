"""Windows, their sum, and transposed convolutions are PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ...support.together import differences


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


IMAGE = numbers(2, 6, 8, 10)

UNFOLDED: dict[str, dict[str, Any]] = {
    "with padding": {"kernel_size": 3, "padding": 1},
    "that lie side by side": {"kernel_size": 2, "stride": 2},
    "with gaps": {"kernel_size": 2, "stride": 3},
    "that overlap": {"kernel_size": 5, "padding": 3, "stride": 2},
    "unequal": {"kernel_size": (2, 3), "dilation": (2, 1), "stride": (1, 2), "padding": (1, 2)},
    "of whole rows": {"kernel_size": (1, 10)},
}


def unfolded(given: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    return lambda x: F.unfold(x, **given)


def folded(given: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    return lambda x: F.fold(F.unfold(x, **given), (8, 10), **given)


WINDOWS: dict[str, Callable[[Tensor], Tensor]] = {
    **{f"unfold {name}": unfolded(given) for name, given in UNFOLDED.items()},
    **{f"fold {name}": folded(given) for name, given in UNFOLDED.items()},
    "unfold one image": lambda x: F.unfold(x[0], 3),
    "fold one image": lambda x: F.fold(F.unfold(x[0], 2, stride=2), (8, 10), 2, stride=2),
    "Tensor.unfold side by side": lambda x: x.unfold(2, 2, 2),
    "Tensor.unfold that overlaps": lambda x: x.unfold(3, 4, 1),
    "Tensor.unfold with gaps": lambda x: x.unfold(-1, 2, 3),
    "Tensor.unfold of the batch": lambda x: x.unfold(0, 2, 1),
    "Tensor.unfold of two axes": lambda x: x.unfold(2, 3, 2).unfold(3, 4, 3),
    "Tensor.unfold of integers": lambda x: (x * 5).long().unfold(1, 3, 2),
    "as_strided": lambda x: x.as_strided((3, 4), (7, 2), 5),
    "as_strided that overlaps": lambda x: (x + 1).as_strided((2, 6, 5, 3), (480, 80, 10, 1)),
}  # fmt: skip

TRANSPOSED: dict[str, dict[str, Any]] = {
    "stride": {"stride": 2, "padding": 1, "output_padding": 1},
    "groups": {"stride": 3, "groups": 2, "padding": 1},
    "dilation": {"dilation": 2, "padding": 1},
    "all": {"dilation": 2, "stride": 2, "groups": 2, "padding": 2, "output_padding": 1},
    "one for each channel": {"stride": 2, "groups": 4},
}


def test_windows_are_those_of_pytorch() -> None:
    assert not differences({name: (call, (IMAGE,)) for name, call in WINDOWS.items()})


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_transposed_convolutions_are_those_of_pytorch(axes: int) -> None:
    convolution = getattr(F, f"conv_transpose{axes}d")
    x = numbers(2, 4, *(4, 3, 5)[:axes])
    cases: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {}
    for name, given in TRANSPOSED.items():
        weight = numbers(4, 2, *(3, 2, 3)[:axes])
        bias = numbers(2 * given.get("groups", 1))

        def fixed(x: Tensor, given: dict[str, Any] = given, weight: Tensor = weight, bias: Tensor = bias) -> Tensor:
            return convolution(x, weight.to(x.dtype), bias.to(x.dtype), **given)  # type: ignore[no-any-return]

        cases[f"{name}, weights"] = fixed, (x,)
        cases[f"{name}, inputs"] = lambda x, w, given=given: convolution(x, w, **given), (x, weight)
    assert not differences(cases)
