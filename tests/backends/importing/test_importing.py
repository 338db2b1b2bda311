"""What TVM's importer reads is what PyTorch means: arithmetic of mixed types, and every operator that has a rule."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reconvene.backends.agreement import disagreement
from reconvene.backends.compile import compile
from reconvene.frontend.base.errors import CaptureError

from ...support.functions import FUNCTIONS, IMAGE
from ...support.functions import REFUSED as REFUSED_FUNCTIONS
from ...support.numbers import UNARY
from ...support.operators import CASES
from ...support.together import Together, compared

INTEGERS = torch.tensor([[-7, -5, -1, 0, 1], [2, 3, 8, 14, 49]])
FLOATS = torch.tensor([[-7.5, -0.6, -0.3, 0.0, 0.1], [0.2, 0.6, 0.9, 2.0, 7.0]])

ARITHMETIC: dict[str, Callable[[Tensor], Tensor]] = {
    "plus a fraction": lambda x: x + 1.5,
    "minus a fraction": lambda x: x - 0.5,
    "from a fraction": lambda x: 0.5 - x,
    "times a fraction": lambda x: x * 0.5,
    "times floats": lambda x: x * torch.full((5,), 0.5),
    "twice the second": lambda x: torch.add(x, x, alpha=2),
    "less twice a number": lambda x: torch.sub(x, 3, alpha=2),
    "twice the first from": lambda x: torch.rsub(x, 3, alpha=2),
    "a half": lambda x: x / 2,
    "a third": lambda x: x / torch.full_like(x, 3),
    "two over": lambda x: 2 / (x * x + 1),
    "floor of a half": lambda x: x // 2,
    "floor of a minus third": lambda x: x // -3,
    "floor by a fraction": lambda x: x // 0.1,
    "floor by a tensor": lambda x: x // torch.full_like(x, 3),
    "truncated": lambda x: torch.div(x, 3, rounding_mode="trunc"),
    "truncated minus": lambda x: torch.div(-x, 2, rounding_mode="trunc"),
    "true division by its long name": lambda x: torch.div(x, 2, rounding_mode=None),
    "remainder": lambda x: x % 7,
    "minus remainder": lambda x: x % -7,
    "remainder of a fraction": lambda x: x % 0.1,
    "fmod": lambda x: torch.fmod(x, 3),
    "square": lambda x: x**2,
    "square by a float": lambda x: x**2.0,
    "root": lambda x: (x * x) ** 0.5,
    "at least a fraction": lambda x: x.clamp(min=-0.5),
    "between": lambda x: x.clamp(-0.5, 2.5),
    "below a fraction": lambda x: x < 1.5,
    "above a fraction": lambda x: x > 0.5,
    "bits that differ": lambda x: (x > 0) != (x > 1),
    "equal": lambda x: x == 2.0,
    "one or a fraction": lambda x: torch.where(x > 3, x, 0.5),
    "maximum with a float": lambda x: torch.maximum(x, torch.tensor(0.5)),
    "exponential": lambda x: torch.exp(x.clamp(-3, 3)),
    "sigmoid": torch.sigmoid,
    "arc tangent": torch.atan,
    "reciprocal": lambda x: torch.reciprocal(x * x + 1),
    "reciprocal root": lambda x: torch.rsqrt(x * x + 1),
    "logarithm": lambda x: torch.log1p(x * x),
    "small integers": lambda x: x.to(torch.int32) // 2,
    "bytes": lambda x: x.abs().to(torch.uint8) // 2,
    "product": lambda x: x.prod(1),
    "least": lambda x: x.min(1)[0],
    "where it is least": lambda x: x.min(1)[1],
}


@pytest.mark.parametrize("numbers", [INTEGERS, FLOATS], ids=["integers", "floats"])
def test_arithmetic_is_that_of_pytorch(numbers: Tensor) -> None:
    outputs = compared(list(ARITHMETIC.values()), [(numbers,)] * len(ARITHMETIC))
    wrong = []
    for name, (expected, found) in zip(ARITHMETIC, outputs, strict=True):
        for wanted, got in zip(expected, found, strict=True):
            same = wanted.dtype == got.dtype and torch.allclose(got.double(), wanted.double(), 1e-5, 1e-6)
            wrong += [] if same else [f"{name}: {got} instead of {wanted}"]
    assert not wrong


REFUSED = {"_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa", "grid_sampler_3d"}
"""Operators that neither TVM's importer nor `backends.importing.decompositions` has."""

UNEQUAL = {"grid_sampler"}
"""Operators some of whose cases are refused."""

OPERATORS = sorted(name for name in CASES if name.removeprefix("aten.") not in REFUSED | UNEQUAL | UNARY.keys())
"""Functions of one number are compiled in test_numbers.py, on all kinds of numbers."""
CHUNKS = 12


@pytest.mark.parametrize("number", range(CHUNKS))
def test_every_operator_with_a_rule_is_compiled_to_what_it_is(number: int) -> None:
    chosen = [(name, CASES[name][-1]) for name in OPERATORS[number::CHUNKS]]
    networks, examples = [], []
    for _, case in chosen:
        torch.manual_seed(0)
        networks.append(case.build().float())
        examples.append(tuple(single(value) for value in case.example()))
    wrong = []
    for (name, case), (expected, found) in zip(chosen, compared(networks, examples), strict=True):
        reason = disagreement(expected, found, 1e-4)
        wrong += [f"{name} {case.label}: {reason}"] if reason else []
    assert not wrong


@pytest.mark.parametrize("operator", sorted(REFUSED))
def test_the_others_are_refused_in_one_line(operator: str) -> None:
    case = CASES[f"aten.{operator}"][0]
    with pytest.raises(CaptureError, match="cannot compile") as caught:
        compile(case.build().float(), tuple(single(value) for value in case.example()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", range(4))
def test_arguments_are_read_as_pytorch_reads_them(number: int) -> None:
    names = sorted(FUNCTIONS)[number::4]
    outputs = compared([FUNCTIONS[name] for name in names], [(IMAGE,)] * len(names))
    reasons = {
        name: disagreement(expected, found, 1e-4) for name, (expected, found) in zip(names, outputs, strict=True)
    }
    assert not {name: reason for name, reason in reasons.items() if reason}


@pytest.mark.parametrize("name", REFUSED_FUNCTIONS)
def test_what_the_importer_would_misread_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(CaptureError, match="cannot compile") as caught:
        compile(Together([REFUSED_FUNCTIONS[name]], [1]), (IMAGE,))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layer", [nn.Linear(8, 5), nn.Conv1d(3, 4, 3), nn.LayerNorm(8)], ids=["mm", "conv", "norm"])
def test_products_in_another_type_are_refused_with_advice(layer: nn.Module, dtype: torch.dtype) -> None:
    with pytest.raises(CaptureError, match=rf"computed in {dtype}.*\.float\(\)"):
        compile(copy.deepcopy(layer).to(dtype), (torch.ones(1, 3, 8, dtype=dtype),))


def test_an_operator_that_was_registered_after_another_compilation_is_taken_apart() -> None:
    example = (torch.tensor([-1.0, 2.0]),)
    compile(nn.ReLU(), example)
    library = torch.library.Library("registered_later", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CompositeImplicitAutograd")
    ((expected, found),) = compared([torch.ops.registered_later.twice.default], [example])
    assert torch.equal(expected[0], found[0])


def single(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


@pytest.mark.parametrize("pieces", [1, 2, 3])
@pytest.mark.parametrize("how", ["split", "split_with_sizes", "chunk", "tensor_split", "unbind"])
def test_pieces_are_cut_however_many(how: str, pieces: int) -> None:
    """One piece is all that there is."""
    calls: dict[str, Callable[[Tensor], Sequence[Tensor]]] = {
        "split": lambda x: x.split(2, 1),
        "split_with_sizes": lambda x: x.split([2] * pieces, dim=1),
        "chunk": lambda x: x.chunk(pieces, 1),
        "tensor_split": lambda x: x.tensor_split(pieces, 1),
        "unbind": lambda x: x.reshape(2, pieces, 2, 3).unbind(1),
    }

    class Cut(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return tuple(piece * (place + 1) for place, piece in enumerate(calls[how](x)))

    x = torch.randn(2, 2 * pieces, 3)
    torch.testing.assert_close(compile(Cut(), (x,)).run(x), Cut()(x), rtol=0, atol=0)
