"""Ridge regression towards old weights: by hand, against NumPy's least squares, and as a minimum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reconvene.passes.recovery.patches import Rows
from reconvene.passes.recovery.ridge import RIDGES, Moments, best_ridge, solve


def moments_of(inputs: Tensor, outputs: Tensor, *, centred: bool = True, pieces: int = 1) -> Moments:
    """Of rows of one group."""
    found = Moments(1, centred)
    for x, y in zip(inputs.chunk(pieces), outputs.chunk(pieces), strict=True):
        found.add(Rows(x[None], y))
    return found


def drawn(rows: int, columns: int, outputs: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, outputs and old weights."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((rows, columns), (rows, outputs), (1, outputs, columns))
    x, y, old = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return x + 2, y + 0.5 * x.sum(1, keepdim=True) - 1, old


def test_one_number_by_hand() -> None:
    """x is 0 and 2, y is 1 and 7: the slope is 3. S = 1 and C = 3; pulled to 1 with r = 1, W = 1 + (3 - 1) / 2 = 2."""
    found = moments_of(torch.tensor([[0.0], [2.0]]).double(), torch.tensor([[1.0], [7.0]]).double())
    old = torch.ones(1, 1, 1, dtype=torch.float64)
    exact, pulled = solve(found, old, 0.0), solve(found, old, 1.0)
    assert (exact.weight.item(), exact.bias.item()) == pytest.approx((3, 1))
    assert (pulled.weight.item(), pulled.bias.item()) == pytest.approx((2, 2))
    assert found.error(exact.weight, exact.bias) == pytest.approx(0, abs=1e-7)
    # Of a deviation of 3, half a slope of 1 is missing: x is 1 from its mean, so 1 of 3.
    assert found.error(pulled.weight, pulled.bias) == pytest.approx(1 / 3)
    assert found.error(0 * old, torch.full((1, 1), 4.0).double()) == pytest.approx(1)


def test_least_squares_is_numpys() -> None:
    x, y, old = drawn(40, 6, 3, 0)
    found = solve(moments_of(x, y, pieces=3), old, 0.0)
    wanted = np.linalg.lstsq(np.c_[x.numpy(), np.ones(40)], y.numpy(), rcond=None)[0]
    np.testing.assert_allclose(found.weight[0].T, wanted[:-1], rtol=1e-9)
    np.testing.assert_allclose(found.bias[0], wanted[-1], rtol=1e-9)
    plain = solve(moments_of(x, y, centred=False), old, 0.0)
    np.testing.assert_allclose(plain.weight[0].T, np.linalg.lstsq(x.numpy(), y.numpy(), rcond=None)[0], rtol=1e-9)
    assert not plain.bias.any()


def test_the_error_is_that_of_the_rows() -> None:
    x, y, old = drawn(30, 4, 2, 1)
    found, bias = moments_of(x, y, pieces=2), torch.tensor([[0.3, -2.0]], dtype=torch.float64)
    lack = (y - x @ old[0].T - bias).square().sum().sqrt()
    assert found.error(old, bias) == pytest.approx(float(lack / (y - y.mean(0)).square().sum().sqrt()))
    plain = moments_of(x, y, centred=False)
    lack = (y - x @ old[0].T).square().sum().sqrt()
    assert plain.error(old, 0 * bias) == pytest.approx(float(lack / y.square().sum().sqrt()))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 12),
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.01, 1.0, 30.0]),
    st.integers(0, 99),
)
def test_nothing_near_the_solution_is_better(rows: int, columns: int, outputs: int, ridge: float, seed: int) -> None:
    x, y, old = drawn(rows, columns, outputs, seed)
    found = solve(moments_of(x, y), old, ridge)
    spread = (x - x.mean(0)).square().mean()

    def cost(weight: Tensor, bias: Tensor) -> float:
        pull = ridge * spread * (weight - old).square().sum()
        return float((y - x @ weight[0].T - bias).square().sum(1).mean() + pull)

    least, generator = cost(found.weight, found.bias), torch.Generator().manual_seed(seed)
    for size in (1e-3, 1e-1):
        step = size * torch.randn(found.weight.shape, generator=generator, dtype=torch.float64)
        assert cost(found.weight + step, found.bias) >= least - 1e-9
        assert cost(found.weight, found.bias + size) >= least - 1e-9


def test_what_no_row_tells_stays_as_it_was() -> None:
    """A column that never varies, and two that are the same, without a ridge."""
    x, y, old = drawn(20, 4, 2, 2)
    x[:, 1], x[:, 3] = 5.0, x[:, 2]
    found = solve(moments_of(x, y), old, 0.0)
    torch.testing.assert_close(found.weight[..., 1], old[..., 1])
    torch.testing.assert_close(found.weight[..., 2] - found.weight[..., 3], old[..., 2] - old[..., 3])
    wanted = np.linalg.lstsq(np.c_[x.numpy(), np.ones(20)], y.numpy(), rcond=None)[0]
    best = np.linalg.norm(y.numpy() - np.c_[x.numpy(), np.ones(20)] @ wanted)
    assert torch.linalg.norm(y - x @ found.weight[0].T - found.bias).item() == pytest.approx(best)


def test_a_strong_pull_keeps_the_weights_and_the_mean() -> None:
    x, y, old = drawn(20, 4, 2, 3)
    found = solve(moments_of(x, y), old, 1e9)
    torch.testing.assert_close(found.weight, old, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close((x @ found.weight[0].T + found.bias).mean(0), y.mean(0))


def test_groups_are_solved_each_by_itself() -> None:
    parts = [drawn(15, 3, 2, seed) for seed in (4, 5)]
    both = Moments(2)
    both.add(Rows(torch.stack([x for x, _, _ in parts]), torch.cat([y for _, y, _ in parts], 1)))
    found = solve(both, torch.cat([old for _, _, old in parts]), 0.1)
    for place, (x, y, old) in enumerate(parts):
        alone = solve(moments_of(x, y), old, 0.1)
        torch.testing.assert_close(found.weight[place], alone.weight[0])
        torch.testing.assert_close(found.bias[place], alone.bias[0])


def test_values_that_are_not_finite_are_noticed() -> None:
    x, y, _ = drawn(5, 2, 1, 6)
    assert moments_of(x, y).finite
    x[2, 1] = float("inf")
    assert not moments_of(x, y).finite


def test_the_ridge_is_judged_on_the_other_half() -> None:
    """Few rows of many columns tell nothing that holds elsewhere: the old weights stay. Many rows tell all."""
    generator = torch.Generator().manual_seed(7)
    truth = torch.randn(1, 2, 20, generator=generator, dtype=torch.float64)

    def halves(rows: int, noise: float) -> tuple[Moments, Moments]:
        found = []
        for _ in range(2):
            x = torch.randn(rows, 20, generator=generator, dtype=torch.float64)
            y = x @ truth[0].T + noise * torch.randn(rows, 2, generator=generator, dtype=torch.float64)
            found.append(moments_of(x, y))
        return found[0], found[1]

    assert best_ridge(halves(2000, 0.0), torch.zeros_like(truth)) == min(RIDGES)
    assert best_ridge(halves(15, 30.0), truth) == max(RIDGES)


def test_halves_add_up() -> None:
    x, y, old = drawn(20, 4, 2, 8)
    whole = solve(moments_of(x, y), old, 0.1)
    parts = solve(moments_of(x[:7], y[:7]) + moments_of(x[7:], y[7:]), old, 0.1)
    torch.testing.assert_close((whole.weight, whole.bias), (parts.weight, parts.bias))
