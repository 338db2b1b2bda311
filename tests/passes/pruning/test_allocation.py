"""Allocations by hand, and what holds for all of them."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconvene.passes.pruning.allocation import (
    ALLOCATIONS,
    ideal_gas_quota,
    smart_ratio,
    smart_ratio_vgg,
    water_filling,
    water_filling_macs,
)
from reconvene.passes.pruning.scores import Weight


def convolution(name: str, out: int, taken: int, macs: int = 0) -> Weight:
    """A 1x1 convolution, so that its weights are ``out * taken``."""
    return Weight(name, (out, taken, 1, 1), True, macs)


A, B, C = convolution("a", 10, 10, 10_000), convolution("b", 20, 20, 10_000), convolution("c", 50, 10, 2_000)
FC = Weight("fc", (10, 100), False, 1_000)


def densities(found: dict[str, float]) -> dict[str, float]:
    return {name: pytest.approx(1 - share) for name, share in found.items()}


def test_water_filling_keeps_equally_many() -> None:
    """300 of 1,000 weights are 100 of each; 600 are all 100 of a, and 250 of each other."""
    assert densities(water_filling([A, B, C], 0.7)) == {"a": 1.0, "b": 0.25, "c": 0.2}
    assert densities(water_filling([A, B, C], 0.4)) == {"a": 1.0, "b": 0.625, "c": 0.5}


def test_water_filling_of_macs_keeps_equally_many_of_these() -> None:
    """At 1,000 multiply-accumulates a layer: a tenth of a and b and half of c, 10 + 40 + 250 = 300 weights of 1,000."""
    assert densities(water_filling_macs([A, B, C], 0.7)) == {"a": 0.1, "b": 0.1, "c": 0.5}


def test_ideal_gas_quota() -> None:
    """F = 1/100: a keeps a half (50), b a fifth (80), c a sixth (83.3): 213.3 of 1,000."""
    assert densities(ideal_gas_quota([A, B, C], 1 - 0.64 / 3)) == {"a": 0.5, "b": 0.2, "c": 1 / 6}
    assert densities(ideal_gas_quota([A, B, C], 0.0)) == {"a": 1.0, "b": 1.0, "c": 1.0}


def test_smart_ratio() -> None:
    """Ratios 12, 6, 2 of 1,000 weights keep 100 x 12 + 400 x 6 + 500 x 2 = 4,600 parts: at 230 weights a part is 1/20."""
    assert densities(smart_ratio([A, B, C], 0.77)) == {"a": 0.6, "b": 0.3, "c": 0.1}


def test_smart_ratio_hands_a_surplus_on() -> None:
    """At 460 weights a would be 1.2 dense: its 20 weights too many go to b, which keeps 240 + 20."""
    assert densities(smart_ratio([A, B, C], 0.54)) == {"a": 1.0, "b": 0.65, "c": 0.2}


def test_smart_ratio_leaves_linear_layers_their_share() -> None:
    """A linear layer of 1,000 weights keeps 300; 530 - 300 = 230 are left for the convolutions."""
    assert densities(smart_ratio([A, B, C, FC], 1 - 530 / 2000)) == {"a": 0.6, "b": 0.3, "c": 0.1, "fc": 0.3}
    assert densities(smart_ratio([A, FC], 0.9)) == {"a": 0.1, "fc": 0.1}  # 110 weights are fewer than 300.
    assert densities(smart_ratio([FC], 0.2)) == {"fc": 0.8}


def test_smart_ratio_of_vgg_is_divided_by_the_place() -> None:
    """Ratios 12, 6/4, 2/9: 1,200 + 600 + 111.1 parts."""
    part = 95.5555555 / 1911.11111
    assert densities(smart_ratio_vgg([A, B, C], 1 - 0.0955555555)) == {"a": 12 * part, "b": 1.5 * part, "c": part / 4.5}


@pytest.mark.parametrize("name", ALLOCATIONS)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sizes=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60), st.booleans(), st.integers(0, 10**6)), min_size=1),
    sparsity=st.floats(0, 0.999),
)
def test_every_allocation_meets_the_budget(name: str, sizes: list[tuple[int, int, bool, int]], sparsity: float) -> None:
    weights = [
        Weight(str(place), (out, taken, 1, 1) if convolves else (out, taken), convolves, macs)
        for place, (out, taken, convolves, macs) in enumerate(sizes)
    ]
    shares = ALLOCATIONS[name](weights, sparsity)
    assert set(shares) == {weight.name for weight in weights}
    assert all(-1e-9 <= share <= 1 for share in shares.values())
    kept = sum((1 - shares[weight.name]) * weight.size for weight in weights)
    total = sum(weight.size for weight in weights)
    assert kept == pytest.approx((1 - sparsity) * total, rel=1e-6, abs=1e-6)
