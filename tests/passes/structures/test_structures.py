"""Every family: masks by hand, projections against all tensors that there are, and zeros that are found again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconvene.frontend.base.errors import InputError
from reconvene.passes.structures import STRUCTURES, BlockColumnsRows, LayerShape, Pattern, find_structure, recognise
from reconvene.passes.structures.bcr import _by_turns
from reconvene.passes.structures.pattern import ALL_PATTERNS
from reconvene.passes.structures.ranking import highest, highest_of_each

from .brute_force import ALLOWED, furthest_kept, pattern_supports, rows_by_columns

SPELLED = (
    "unstructured", "row-block:4", "row-block:16", "block-column:8", "block-row:8", "bcr:16x8", "bcr:8x4",
    "block-punched:8x4", "dot:4", "dot:1", "pattern:8", "pattern:6:4", "connectivity", "connectivity:4", "2:4", "2:4:4",
    "1:8", "unified:4x4", "unified:2x8",
)  # fmt: skip
RECOGNISED = {"block-column:8": "row-block:8", "dot:4": "block-punched:4x4"}
"""Of zeros that several families describe, the one that is named."""


def weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_every_family_is_tried() -> None:
    families = {str(find_structure(name).form).partition(":")[0] for name in SPELLED}
    assert families == set(STRUCTURES)


@pytest.mark.parametrize(("name", "shape", "allowed"), ALLOWED, ids=[f"{row[0]} {row[1]}" for row in ALLOWED])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), sparsity=st.floats(0, 0.95))
def test_projection_is_the_nearest(
    name: str, shape: tuple[int, ...], allowed: Callable[[Any], Any], seed: int, sparsity: float
) -> None:
    structure, dense = find_structure(name), weight(*shape, seed=seed)
    near = structure.project(dense, sparsity)
    kept = int((near != 0).sum())
    assert not structure.fits(LayerShape.of(dense)) and not structure.broken(near)
    assert torch.equal(near[near != 0], dense[near != 0])
    best = furthest_kept(dense.square().numpy(), allowed, kept)
    assert float(near.square().sum()) == pytest.approx(best, rel=1e-12)
    if structure.fixed_sparsity is None:
        unit = structure.unit_weights(LayerShape.of(dense))
        units = dense.numel() // unit
        assert kept == unit * max(1, units - round(sparsity * units))
    else:
        assert kept == round((1 - structure.fixed_sparsity) * dense.numel())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), sparsity=st.floats(0, 0.99))
def test_projection_onto_rows_by_columns(seed: int, sparsity: float) -> None:
    structure, dense = BlockColumnsRows(2, 2), weight(2, 2, 3, seed=seed)
    columns, rows = structure.kept(6, sparsity)
    near = structure.project(dense, sparsity)
    best = furthest_kept(dense.square().numpy(), rows_by_columns(2, 2, rows, columns), rows * columns)
    assert float(near.square().sum()) == pytest.approx(best, rel=1e-12) and not structure.broken(near)
    assert abs(rows * columns - 12 * (1 - sparsity)) <= 1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), kernels=st.integers(1, 4))
def test_projection_onto_patterns_of_kernels(seed: int, kernels: int) -> None:
    patterns, dense = ALL_PATTERNS[3:50:15], weight(2, 2, 3, 3, seed=seed)
    structure = Pattern(len(patterns), patterns=patterns)
    near = structure.project(dense, 1 - kernels * 4 / 36)
    best = max(float(dense.square()[support].sum()) for support in pattern_supports((2, 2, 3, 3), patterns, kernels))
    assert float(near.square().sum()) == pytest.approx(best, rel=1e-12) and not structure.broken(near)
    assert int((near != 0).sum()) == 4 * kernels


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), kept=st.integers(1, 3))
def test_projection_onto_unified_blocks(seed: int, kept: int) -> None:
    """Three blocks of 2x2: of every choice of blocks, u is tried on a fine grid around the mean."""
    structure, dense = find_structure("unified:2x2"), weight(2, 6, seed=seed)
    near = structure.project(dense, 1 - kept / 3)
    blocks = dense.reshape(2, 3, 2).transpose(0, 1).reshape(3, 4)
    grid = torch.linspace(0, 4, 4001, dtype=torch.float64)
    left = (blocks.abs()[:, None] - grid[:, None]).square().sum(2).min(1).values
    gains = blocks.square().sum(1) - left
    best = float(blocks.square().sum() - gains.sort(descending=True).values[:kept].sum())
    assert float((near - dense).square().sum()) == pytest.approx(best, abs=2e-5)
    assert not structure.broken(near) and bool(((near * dense) >= 0).all())


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(torch.float16, 2.0**-13), (torch.float16, 2.0**13), (torch.float32, 2.0**80), (torch.bfloat16, 2.0**-80)],
    ids=str,
)
@pytest.mark.parametrize("name", SPELLED)
def test_weights_whose_squares_are_out_of_range_are_projected_alike(
    name: str, dtype: torch.dtype, scale: float
) -> None:
    """Powers of two scale every weight exactly, and so the nearest tensor."""
    structure, dense = find_structure(name), weight(32, 32, 3, 3).clamp(-3, 3).to(torch.bfloat16)
    dense[dense.abs() < 1 / 16] = 1 / 16
    near = structure.project((dense.double() * scale).to(dtype), 0.75)
    wanted = structure.project(dense.double(), 0.75) * scale
    assert near.dtype is dtype and not structure.broken(near)
    assert torch.equal(near == 0, wanted == 0)
    torch.testing.assert_close(near.double(), wanted, rtol=0.004, atol=0)


@pytest.mark.parametrize("name", SPELLED)
def test_zeros_are_found_again_and_projecting_twice_changes_nothing(name: str) -> None:
    structure, dense = find_structure(name), weight(64, 32, 3, 3)
    near = structure.project(dense, 0.75)
    assert torch.equal(structure.project(near, 0.75), near) or name.startswith("unified")
    torch.testing.assert_close(structure.project(near, 0.75), near)
    found = recognise(near)
    assert str(found) == RECOGNISED.get(name, name) and not structure.broken(near)
    assert str(find_structure(str(structure))) == str(structure) == name
    anywhere = find_structure("unstructured").project(dense, 0.75)
    assert bool(structure.broken(anywhere)) == (name != "unstructured")


@pytest.mark.parametrize(
    "name", ["row-block:8", "bcr:16x8", "block-punched:8x4", "block-row:4", "2:4:4", "unified:4x4"]
)
def test_matrices_have_them_too(name: str) -> None:
    structure = find_structure(name)
    near = structure.project(weight(96, 64), 0.75)
    assert str(recognise(near)) == name


def test_what_has_no_zeros_has_no_structure() -> None:
    assert recognise(weight(8, 8, 3, 3)) is None
    assert str(recognise(torch.zeros(8, 8))) == "unstructured"
    assert str(recognise(torch.ones(4, 8))) == "unified:4x8"
    few = weight(8, 8, 3, 3)
    few[3, 4, 1, 1] = 0
    assert str(recognise(few)) == "unstructured"


@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("shape", [(64, 32, 3, 3), (64, 64), (32, 32, 1, 1)])
def test_random_zeros_are_not_taken_for_more_than_they_are(sparsity: float, shape: tuple[int, ...]) -> None:
    dense = weight(*shape)
    assert str(recognise(find_structure("unstructured").project(dense, sparsity))) == "unstructured"


def test_one_unit_always_stays() -> None:
    for name in SPELLED:
        near = find_structure(name).project(weight(64, 32, 3, 3), 0.99999)
        assert bool((near != 0).any()), name


def test_patterns_are_those_that_are_most_frequent_in_all_layers() -> None:
    corner, cross = 0b000011011, 0b010111000  # Positions 0, 1, 3, 4 and 3, 4, 5, 7.
    first, second = torch.zeros(4, 4, 9), torch.zeros(2, 4, 9)
    first[..., [0, 1, 3, 4]] = 1.0
    second[..., [3, 4, 5, 7]] = 1.0
    first[0, 0, 8] = 0.5  # Not one of the three largest around the centre.
    layers = [first.reshape(4, 4, 3, 3), second.reshape(2, 4, 3, 3)]
    assert Pattern(2).fitted(layers).patterns == tuple(sorted((corner, cross)))
    assert Pattern(1).fitted(layers).patterns == (corner,)
    assert len(ALL_PATTERNS) == 56 == len(Pattern(56).fitted(layers).patterns)


def test_patterns_alone_leave_four_of_nine() -> None:
    near = Pattern().project(weight(8, 8, 3, 3), 0.5)
    assert int((near != 0).sum()) == 8 * 8 * 4 and bool((near[:, :, 1, 1] != 0).all())
    assert len({tuple(kernel) for kernel in (near != 0).reshape(-1, 9).tolist()}) <= 8


def test_a_set_that_was_given_is_kept_to() -> None:
    patterns = ALL_PATTERNS[:2]
    near = Pattern(2, patterns=patterns).project(weight(4, 4, 3, 3), 0.6)
    assert not Pattern(2, patterns=patterns).broken(near)
    assert "not of the set" in Pattern(2, patterns=ALL_PATTERNS[2:4]).broken(near)


def test_turns_retain_no_less_than_columns_and_then_rows() -> None:
    blocks = weight(50, 16, 24).square()
    chosen = _by_turns(blocks, 8, 12)
    columns = highest_of_each(blocks.sum(1), 12)
    rows = highest_of_each((blocks * columns[:, None]).sum(2), 8)
    once = (blocks * rows[:, :, None] * columns[:, None]).sum((1, 2))
    turned = (blocks * chosen).sum((1, 2))
    assert bool((turned >= once - 1e-12).all()) and bool((turned > once + 1e-9).any())
    assert bool((chosen.any(2).sum(1) == 8).all()) and bool((chosen.any(1).sum(1) == 12).all())


def test_scores_of_units_pass_gradients_for_penalties_on_groups() -> None:
    dense = weight(8, 4).requires_grad_()
    find_structure("row-block:4").unit_scores(dense.square()).sqrt().sum().backward()
    norms = dense.detach().reshape(2, 4, 4).norm(dim=1, keepdim=True).expand(2, 4, 4).reshape(8, 4)
    torch.testing.assert_close(dense.grad, dense.detach() / norms)


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.0, 2.5]), min_size=1, max_size=30), st.integers(-1, 32))
def test_of_equal_scores_the_last_stay(values: list[float], count: int) -> None:
    order = sorted(range(len(values)), key=lambda place: (values[place], place))
    expected = set(order[max(0, len(values) - max(0, count)) :])
    for found in (highest(torch.tensor(values), count), highest_of_each(torch.tensor([values]), max(0, count))[0]):
        assert {place for place, keep in enumerate(found.tolist()) if keep} == expected


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("row-block:4", LayerShape(10, 8), "10 filters are no multiple of 4"),
        ("row-block:4", LayerShape(16, 8, (3, 3), groups=8), "2 filters of a group are no multiple of 4"),
        ("2:4", LayerShape(64, 3, (3, 3)), "3 input channels are no multiple of 4"),
        ("2:4", LayerShape(64, 6, (3, 3), groups=4), "6 input channels of a group are no multiple"),
        ("bcr:16x8", LayerShape(64, 12, (3, 3)), "12 input channels"),
        ("pattern", LayerShape(64, 64, (1, 1)), "of 3x3 kernels, its are 1x1"),
        ("pattern", LayerShape(64, 64), "its are none"),
        ("pattern:8:4", LayerShape(6, 64, (3, 3)), "6 filters"),
        ("connectivity", LayerShape(64, 64, (1, 1)), "single weights"),
        ("block-row:8", LayerShape(64, 12), "12 input channels"),
        ("dot:4", LayerShape(64, 2), "2 input channels"),
    ],
)
def test_a_structure_says_why_it_does_not_fit(name: str, shape: LayerShape, reason: str) -> None:
    assert reason in find_structure(name).fits(shape)


@pytest.mark.parametrize(
    ("spelled", "message"),
    [
        ("circles", "no structure 'circles'; there are unstructured, row-block:R"),
        ("N", "no structure 'N'"),
        ("", "no structure ''"),
        ("2", "'2' is not spelled as N:M:R"),
        ("1:300", "1:300 is of too many input channels; M is at most 256"),
        ("row-block:0", "filters of row-block:R is 0"),
        ("row-block:4x4", "'row-block:4x4' is not spelled as row-block:R"),
        ("row-block:", "not spelled as"),
        ("row-block:-4", "not spelled as"),
        ("bcr:16:8", "not spelled as bcr:PxQ"),
        ("unstructured:4", "not spelled as unstructured"),
        ("4:2", "4:2 leaves nothing out"),
        ("4:4", "4:4 leaves nothing out"),
        ("2:4:4:4", "not spelled as N:M:R"),
        ("1:1000", "at most 256"),
        ("pattern:57", "56 patterns"),
        ("2:99999999999", "not spelled as"),
    ],
)
def test_wrong_spellings_are_refused_in_one_line(spelled: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        find_structure(spelled)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_shares_out_of_range_are_refused(sparsity: float) -> None:
    for name in SPELLED:
        with pytest.raises(InputError, match="sparsity"):
            find_structure(name).mask(weight(64, 32, 3, 3), sparsity)


def test_unknown_patterns_are_refused() -> None:
    with pytest.raises(InputError, match="15 is no pattern"):
        Pattern(patterns=(15,))


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("row-block:4", "filters 4 to 7, input channel 2, kernel position 5: 3 of 4 weights"),
        ("block-row:2", "filter 5, input channels 2 to 3: 17 of 18 weights"),
        ("block-punched:4x2", "filters 4 to 7, input channels 2 to 3, kernel position 5: 7 of 8"),
        ("connectivity:2", "filters 4 to 5, input channel 2: 17 of 18"),
        ("bcr:4x2", "filters 4 to 7, input channels 2 to 3: more is zero"),
        ("pattern", "filter 0, input channel 0: 9 of 9 kernel positions"),
        ("2:4", "filter 0, input channels 0 to 3: 4 of 4 are there, more than 2"),
        ("unified:2x2", "filters 0 to 1, input channels 0 to 1, kernel position 0: absolute values from"),
    ],
)
def test_what_breaks_a_structure_is_said(name: str, where: str) -> None:
    dense = weight(8, 4, 3, 3)
    dense[5, 2, 1, 2] = 0
    assert find_structure(name).broken(dense).startswith(where)


def test_filters_that_should_share_and_do_not_are_named() -> None:
    near = find_structure("2:4:2").project(weight(4, 8), 0.5)
    near[2, 4:] = torch.tensor([1.0, 1.0, 0.0, 0.0])
    near[3, 4:] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert find_structure("2:4:2").broken(near).startswith("filters 2 to 3, input channel 5: some of these")
    matrix = weight(4, 4)
    matrix[1, 2] = 0
    assert find_structure("row-block:4").broken(matrix) == (
        "filters 0 to 3, input channel 2: 3 of 4 weights are there, not all or none"
    )
