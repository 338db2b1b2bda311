"""What the loss of channels costs: by hand, and against solving the rest anew by NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from reconvene.passes.recovery.elimination import System, eliminate

RIDGE = 1e-9


def drawn(columns: int, outputs: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Weights, and the covariance of inputs that depend on each other."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, columns, generator=generator, dtype=torch.float64)
    x = x + 0.7 * x.roll(1, 1)
    x = x - x.mean(0)
    return torch.randn(outputs, columns, generator=generator, dtype=torch.float64), x.T @ x / 200


def solved_without(weight: Tensor, covariance: Tensor, gone: list[int]) -> tuple[Tensor, float]:
    """The weights of the columns that stay, solved anew, and the mean square that the outputs lack."""
    stay = [column for column in range(weight.shape[1]) if column not in gone]
    part = covariance[stay][:, stay]
    new = torch.from_numpy(np.linalg.solve(part.numpy(), covariance[stay].numpy() @ weight.numpy().T)).T
    full = weight.clone()
    full[:, gone] = 0
    full[:, stay] = new
    lack = weight - full
    return new, float(((lack @ covariance) * lack).sum())


def test_independent_inputs_by_hand() -> None:
    """Nothing stands for a lost input: it costs its variance times the squares of its weights."""
    weight = torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 1.0]]).double()
    covariance = torch.diag(torch.tensor([4.0, 1.0, 0.5])).double()
    system = System.of(weight, covariance, RIDGE, torch.arange(3))
    torch.testing.assert_close(system.costs(3), torch.tensor([4.0, 5.0, 5.0]).double(), rtol=1e-6, atol=1e-6)
    system.remove(torch.tensor([0]))
    torch.testing.assert_close(system.weight[:, 1:], weight[:, 1:], rtol=1e-6, atol=1e-6)
    assert not system.weight[:, 0].any()


@pytest.mark.parametrize("taps", [1, 3])
def test_costs_are_those_of_solving_the_rest_anew(taps: int) -> None:
    weight, covariance = drawn(4 * taps)
    channels = torch.arange(4).repeat_interleave(taps)
    system = System.of(weight, covariance, RIDGE, channels)
    for channel, cost in enumerate(system.costs(4).tolist()):
        gone = [channel * taps + tap for tap in range(taps)]
        assert cost == pytest.approx(solved_without(weight, covariance, gone)[1], rel=1e-5)
    system.remove(torch.tensor([1, 3]))
    gone = [column for column, channel in enumerate(channels.tolist()) if channel in (1, 3)]
    wanted, _ = solved_without(weight, covariance, gone)
    stay = [column for column in range(4 * taps) if column not in gone]
    torch.testing.assert_close(system.weight[:, stay], wanted, rtol=1e-5, atol=1e-5)
    assert system.channels.tolist() == [channel for channel in (0, -1, 2, -1) for _ in range(taps)]
    assert system.costs(4)[[1, 3]].tolist() == [0, 0]


def test_channels_with_unequal_numbers_of_columns_and_columns_of_others() -> None:
    weight, covariance = drawn(5)
    system = System.of(weight, covariance, RIDGE, torch.tensor([2, 0, -1, 2, 1]))
    for channel, gone in enumerate([[1], [4], [0, 3]]):
        assert system.costs(4)[channel] == pytest.approx(solved_without(weight, covariance, gone)[1], rel=1e-5)
    assert system.costs(4)[3] == 0


def test_of_two_that_stand_for_each_other_one_is_free() -> None:
    """Channels 0 and 3 hold the same. Told once, both would be free; told anew, only one is."""
    weight, covariance = drawn(6, seed=1)
    picked = torch.tensor([0, 1, 2, 0, 4, 5])
    system = System.of(weight[:, :6], covariance[picked][:, picked], 1e-6, torch.arange(6))
    found = eliminate([system], 6)
    assert found.order[0] in (0, 3) and found.costs[0] < 1e-4 * found.costs[1]
    assert sorted(found.order.tolist()) == list(range(6))
    assert found.ranks[found.order].tolist() == list(range(6))


def test_costs_add_up_to_what_is_lost() -> None:
    weight, covariance = drawn(7, seed=2)
    found = eliminate([System.of(weight, covariance, RIDGE, torch.arange(7))], 7)
    for count in (1, 3, 5):
        lost = solved_without(weight, covariance, found.order[:count].tolist())[1]
        assert found.costs[:count].sum() >= lost * (1 - 1e-4)  # Costs never fall, so their sum is at least that.
    assert found.costs[0] == pytest.approx(solved_without(weight, covariance, found.order[:1].tolist())[1], rel=1e-4)
    assert (np.diff(found.costs) >= 0).all()


def test_all_layers_that_read_a_channel_count() -> None:
    """Each alone would spare the channel that it does not need; together they need both."""
    covariance = torch.eye(3, dtype=torch.float64)
    first = System.of(torch.tensor([[0.0, 3.0, 1.0]]).double(), covariance, RIDGE, torch.arange(3))
    second = System.of(torch.tensor([[3.0, 0.0, 1.0]]).double(), covariance, RIDGE, torch.arange(3))
    found = eliminate([first, second], 3)
    assert found.order[0] == 2 and found.costs.tolist() == pytest.approx([2, 9, 9])


def test_large_systems_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconvene.passes.recovery.elimination._LARGEST", 4)
    weight, covariance = drawn(5, seed=3)
    system = System.of(weight, covariance, RIDGE, torch.arange(5))
    first = system.costs(5)
    assert eliminate([system], 5).order.tolist() == first.argsort(stable=True).tolist()


def test_the_scale_of_an_output_is_what_its_error_costs() -> None:
    weight, covariance = drawn(4, outputs=2, seed=4)
    influence = torch.tensor([[4.0], [0.0]]).double()
    scaled = System.of(weight * influence.sqrt(), covariance, RIDGE, torch.arange(4)).costs(4)
    alone = System.of(weight[:1], covariance, RIDGE, torch.arange(4)).costs(4)
    torch.testing.assert_close(scaled, 4 * alone)
