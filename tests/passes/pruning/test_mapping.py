"""The rules by which layers take structures: worked out by hand on a table of known times, and what makes no sense."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.pruning.mapping import MappingRules, map_layers
from reconvene.passes.pruning.structure_plan import PlannedLayer
from reconvene.passes.structures import Structure
from reconvene.passes.weight_views import weight_views

X = (torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)),)


class Net(nn.Module):
    """A layer of every kind that the rules know."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.square = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3)
        self.each, self.point = nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 16, 1)
        self.large, self.hidden, self.fc = nn.Conv2d(16, 18, 5, padding=2), nn.Linear(18, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.large(self.point(self.each(self.square(self.stem(x)))))
        return self.fc(self.hidden(x.mean((2, 3))))


VIEWS = weight_views(canonicalize(capture(Net().eval(), X)))


@dataclass(frozen=True)
class Time:
    time: float


class Table:
    """Times that a test says: of layers without zeros, and by structure."""

    def __init__(self, dense: dict[str, float], sparse: dict[str, dict[str, float]]) -> None:
        self._dense, self._sparse = dense, sparse
        self.filled: list[tuple[str, str, float]] = []

    def __contains__(self, name: str) -> bool:
        return name in self._dense

    def fill(self, asked: Iterable[tuple[str, Structure, float]], dense: Sequence[str] = ()) -> None:
        self.filled += [(name, str(structure), share) for name, structure, share in asked]

    def dense(self, name: str) -> Time:
        return Time(self._dense[name])

    def sparse(self, name: str, structure: Structure, share: float) -> Time:
        assert (name, str(structure), share) in self.filled
        return Time(self._sparse[name][str(structure)])


DENSE = {f"{name}.weight": 100.0 for name in ("stem", "square", "each", "point", "large", "hidden", "fc")}
LADDER = {"unstructured": 60.0, "row-block:2": 45.0, "row-block:4": 35.0, "row-block:8": 31.0, "row-block:16": 30.0}
PUNCHED = {
    "unstructured": 70.0, "block-punched:2x1": 49.0, "block-punched:4x1": 44.0, "block-punched:4x4": 41.0,
    "block-punched:8x4": 39.0, "block-punched:16x4": 40.0, "block-punched:16x8": 40.0,
}  # fmt: skip
SPARSE = {
    "square.weight": {"pattern:8": 55.0, **PUNCHED},
    "point.weight": LADDER,
    # Of 18 filters, blocks of 4, 8 and 16 are none.
    "large.weight": {"unstructured": 90.0, "block-punched:2x1": 80.0},
    "hidden.weight": dict.fromkeys(LADDER, 100.0),
}


def mapped(dense: dict[str, float] = DENSE, **rules: Any) -> dict[str, PlannedLayer]:
    return {
        layer.name.removesuffix(".weight"): layer
        for layer in map_layers(VIEWS, Table(dense, SPARSE), MappingRules(**rules))
    }


def test_what_the_rules_give_by_hand() -> None:
    """At 20 %, point may take 36: blocks of 4 at 35. large may take 96, so that single weights at 90 do."""
    found = mapped()
    assert {name: (layer.structure, layer.share, layer.dense, layer.sparse) for name, layer in found.items()} == {
        "stem": (None, 0, 100, 100),
        "square": ("pattern:8", 0.8, 100, 55),
        "each": (None, 0, 100, 100),
        "point": ("row-block:4", 0.8, 100, 35),
        "large": ("unstructured", 0.8, 100, 90),
        "hidden": (None, 0, 100, 100),
        "fc": (None, 0, 100, 100),
    }
    assert found["square"].reason == "a 3x3 convolution on hard data takes pattern:8"
    assert found["point"].reason == (
        "a pointwise convolution: the smallest block within 20% of the coarsest, row-block:16, at 1.17 times its time;"
        " row-block:2 would take 1.50 times its time"
    )
    assert found["large"].reason == (
        "a 5x5 convolution: the smallest block within 20% of the coarsest, block-punched:2x1, at 1.12 times its time"
    )
    assert found["hidden"].reason == "a linear layer, which gains nothing by 80% zeros of unstructured"
    assert found["each"].reason.startswith("depthwise") and found["stem"].reason.startswith("a first convolution")
    assert found["fc"].reason.startswith("a last layer")


@pytest.mark.parametrize(
    ("beta", "square", "point"),
    [
        (0.0, "block-punched:8x4", "row-block:16"),
        (0.04, "block-punched:4x4", "row-block:8"),
        (0.25, "block-punched:2x1", "row-block:4"),
        (0.5, "block-punched:2x1", "row-block:2"),
        (1.0, "unstructured", "unstructured"),
    ],
)
def test_beta_and_easy_data_by_hand(beta: float, square: str, point: str) -> None:
    """Of the coarsest, block-punched:16x8 at 40 and row-block:16 at 30; smaller blocks may be faster than that."""
    found = mapped(beta=beta, data="easy")
    assert (found["square"].structure, found["point"].structure) == (square, point)
    assert "a 3x3 convolution on easy data" in found["square"].reason
    if beta == 0:
        assert found["point"].reason.startswith(
            "a pointwise convolution: no smaller block is within 0% of the coarsest; "
        )


def test_several_sizes_of_patterns_are_a_ladder() -> None:
    times = {**SPARSE, "square.weight": {"pattern:8": 55.0, "pattern:8:2": 40.0, "pattern:8:4": 36.0}}
    rules = MappingRules(patterns=("pattern:8:4", "pattern:8", "pattern:8:2"))
    found = {layer.name: layer.structure for layer in map_layers(VIEWS, Table(DENSE, times), rules)}
    assert found["square.weight"] == "pattern:8:2"


def test_patterns_are_five_ninths_at_least() -> None:
    assert mapped(sparsity=0.4)["square"].share == 5 / 9 and mapped(sparsity=0.4)["point"].share == 0.4


def test_what_is_asked_for_is_asked_at_once_and_once() -> None:
    table = Table(DENSE, SPARSE)
    map_layers(VIEWS, table, MappingRules())
    assert len(table.filled) == len(set(table.filled)) == 1 + 5 + 2 + 5
    assert {name for name, _, _ in table.filled} == set(SPARSE)


def test_layers_that_are_left_alone_or_of_no_known_time() -> None:
    known = {name: time for name, time in DENSE.items() if name != "point.weight"}
    found = mapped(known, ignore=("squ*", "large.weight"))
    assert found["square"].reason == "left alone by 'squ*'" and found["large"].reason == "left alone by 'large.weight'"
    assert found["point"].reason == "it has no kernel of ours, so its time is not known"
    assert (found["point"].dense, found["square"].dense) == (None, 100)


def test_what_fits_no_block_stays_dense_with_the_reasons() -> None:
    found = mapped(punched=("block-punched:8x4", "row-block:4"))["large"]
    assert found.structure is None
    assert found.reason == (
        "a 5x5 convolution; block-punched:8x4: its 18 filters are no multiple of 8; row-block:4: its 18 filters are no"
        " multiple of 4"
    )


@given(st.lists(st.floats(1, 100), min_size=5, max_size=5), st.floats(0, 2))
def test_no_smaller_block_would_do(times: list[float], beta: float) -> None:
    table = Table(DENSE, {**SPARSE, "point.weight": dict(zip(LADDER, times, strict=True))})
    found = {layer.name: layer for layer in map_layers(VIEWS, table, MappingRules(beta=beta))}["point.weight"]
    if found.structure is not None:
        place = list(LADDER).index(found.structure)
        assert found.sparse == times[place] <= (1 + beta) * times[-1] and times[place] < 100
        assert all(time > (1 + beta) * times[-1] for time in times[:place])


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"sparsity": 0}, "with a sparsity of 0 nothing takes a structure"),
        ({"sparsity": 1.0}, "sparsity 1.0 is outside"),
        ({"beta": -0.1}, "beta -0.1 is no share from 0 up"),
        ({"beta": float("nan")}, "beta nan is no share"),
        ({"beta": float("inf")}, "beta inf is no share"),
        ({"data": "large"}, "data are hard or easy, not 'large'"),
        ({"blocks": ("moss",)}, "there is no structure 'moss'"),
        ({"punched": ("2:4",)}, "2:4 says its share of zeros itself, so it cannot be compared with others"),
        ({"ignore": ("x",)}, "the pattern 'x' matches no layer; names look like 'stem.weight'"),
    ],
)
def test_what_makes_no_sense(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        mapped(**rules)


def test_a_network_of_which_nothing_is_known() -> None:
    with pytest.raises(InputError, match="no layer of this model has a known time"):
        mapped({})
