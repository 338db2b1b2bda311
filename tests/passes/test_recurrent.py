"""Recurrent cells in loops, LSTMs with projections, and cells that are spelled out, by hand and against PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reconvene.driver.api import compile as compile_model
from reconvene.driver.api import prune
from reconvene.passes.compaction import compact as compact_graph

from ..support.models import EXACT, Exactness, assert_exact, masked_copy, randomise

SEQUENCE = (torch.zeros(2, 5, 6),)
CELLS = {"gru": nn.GRUCell, "lstm": nn.LSTMCell, "rnn": nn.RNNCell}


class Loop(nn.Module):
    """A layer, a cell that carries its state through a sequence, and a layer that reads the last state."""

    def __init__(self, cell: nn.Module, width: int = 8, units: int = 12) -> None:
        super().__init__()
        self.first, self.cell, self.out = nn.Linear(6, width), cell, nn.Linear(units, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for place in range(5):
            state = self.cell(self.first(x[:, place]).relu(), state)
        return self.out(state[0] if isinstance(state, tuple) else state)


class SpelledGru(nn.Module):
    """A GRU cell made of two linear layers."""

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.given, self.carried = nn.Linear(width, 3 * units), nn.Linear(units, 3 * units)
        self.units = units

    def forward(self, x: Tensor, state: Tensor | None) -> Tensor:
        state = x.new_zeros(x.shape[0], self.units) if state is None else state
        reset, update, candidate = self.given(x).chunk(3, 1)
        old_reset, old_update, old_candidate = self.carried(state).chunk(3, 1)
        reset, update = torch.sigmoid(reset + old_reset), torch.sigmoid(update + old_update)
        return torch.lerp(torch.tanh(candidate + reset * old_candidate), state, update)


class SpelledLstm(nn.Module):
    """An LSTM cell made of one linear layer on input and state."""

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.gates, self.units = nn.Linear(width + units, 4 * units), units

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        hidden, cell = state or (x.new_zeros(x.shape[0], self.units), x.new_zeros(x.shape[0], self.units))
        i, f, g, o = self.gates(torch.cat([x, hidden], 1)).split(self.units, 1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell


MADE = {**CELLS, "spelled gru": SpelledGru, "spelled lstm": SpelledLstm}


@pytest.mark.parametrize("kind", MADE)
def test_pruning_halves_the_layer_before_a_cell_and_the_cell(kind: str) -> None:
    model, x = randomise(Loop(MADE[kind](8, 12))), torch.randn(2, 5, 6)
    result = prune(model, (x,))
    assert result.module.get_parameter("first.weight").shape[0] == 4
    assert result.module.get_parameter("out.weight").shape[1] == 6
    with torch.no_grad():
        expected = masked_copy(model, result.plan.masks)(x.double())
        assert float((expected - result.module(x)).abs().max()) < 1e-5


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("masks", ["M1", "M2"])
def test_cells_are_exact_at_a_dynamic_batch(kind: str, masks: str) -> None:
    free = ({0: torch.export.Dim.DYNAMIC},)
    result = assert_exact(randomise(Loop(CELLS[kind](8, 12))), SEQUENCE, masks, dynamic_shapes=free)
    assert dict(result.module.named_parameters())["first.weight"].shape[0] == 4


def test_constant_features_fold_into_the_input_bias_of_all_steps() -> None:
    model = randomise(Loop(nn.GRUCell(8, 12))).double()
    masks = {"first.weight": torch.arange(8) % 4 != 0}
    with torch.no_grad():
        model.first.bias.copy_(torch.arange(1.0, 9.0))
    result = Exactness(model, SEQUENCE).check(masks)
    found = dict(result.module.named_parameters())
    expected = model.cell.bias_ih + model.cell.weight_ih[:, [0, 4]] @ model.first.bias[[0, 4]]
    assert found["first.weight"].shape == (6, 6)
    assert torch.allclose(found["cell.bias_ih"], expected, rtol=0, atol=1e-12)


class OtherConstants(Loop):
    """The same cell reads two layers, whose constants differ."""

    def __init__(self) -> None:
        super().__init__(nn.GRUCell(8, 12))
        self.second = nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        state = self.cell(self.first(x[:, 0]).relu())
        return self.out(self.cell(self.second(x[:, 1]).relu(), state))


def test_steps_that_see_other_constants_keep_them() -> None:
    model = randomise(OtherConstants())
    with torch.no_grad():
        model.first.bias.fill_(1.0)
        model.second.bias.fill_(2.0)
    rows = torch.arange(8) % 2 == 0
    masks = {"first.weight": rows, "second.weight": rows}
    exactness = Exactness(model, SEQUENCE)
    assert dict(exactness.check(masks).module.named_parameters())["first.weight"].shape[0] == 8
    silent = exactness.check({**masks, "first.bias": rows, "second.bias": rows})
    assert dict(silent.module.named_parameters())["first.weight"].shape[0] == 4


def test_a_bias_that_stands_in_two_places_takes_no_constants() -> None:
    model = randomise(Loop(nn.GRUCell(8, 12)))
    model.cell.bias_hh = model.cell.bias_ih
    masks = {"first.weight": torch.arange(8) % 2 == 0}
    assert dict(Exactness(model, SEQUENCE).check(masks).module.named_parameters())["first.weight"].shape[0] > 4


def test_a_unit_that_nobody_reads_goes_and_one_that_its_cell_reads_stays() -> None:
    model = randomise(Loop(nn.GRUCell(8, 12)))
    with torch.no_grad():
        model.out.weight[:, :6] = 0
        model.cell.weight_hh[:, :3] = 0
    result = Exactness(model, SEQUENCE).check()
    assert dict(result.module.named_parameters())["cell.weight_hh"].shape == (27, 9)


class Projected(nn.Module):
    """An LSTM with projections between two layers."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.first, self.lstm = nn.Linear(6, 8), nn.LSTM(8, 10, batch_first=True, proj_size=5, **options)
        self.out = nn.Linear(10 if options.get("bidirectional") else 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(self.first(x).relu())[0])


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"bias": False}])
def test_projections_units_and_features_go(options: dict[str, Any]) -> None:
    model, x = randomise(Projected(**options)), torch.randn(2, 5, 6)
    result = prune(model, (x,), sparsity=0.4)
    found = {name: tuple(value.shape) for name, value in result.module.named_parameters()}
    assert found["first.weight"] == (5, 6)
    assert found["lstm.weight_hr_l0"] == (3, 6)
    assert found["lstm.weight_hh_l0"] == (24, 3)
    with torch.no_grad():
        expected = masked_copy(model, result.plan.masks)(x.double())
        assert float((expected - result.module(x)).abs().max()) < 1e-5


def test_as_many_units_as_projections_are_never_left() -> None:
    model = randomise(Projected())
    masks = {name: torch.ones_like(value, dtype=torch.bool) for name, value in model.lstm.named_parameters()}
    for name, mask in masks.items():
        if name.endswith("hr_l0"):
            mask[:, :5] = False
        else:
            mask.reshape(4, 10, -1)[:, :5] = False
    result = Exactness(model, SEQUENCE).check({f"lstm.{name}": mask for name, mask in masks.items()})
    assert dict(result.module.named_parameters())["lstm.weight_hr_l0"].shape == (5, 6)
    assert any("more units than it projects them to" in refusal for refusal in result.refusals)


def test_a_pruned_cell_computes_the_same_when_it_is_compiled() -> None:
    x = torch.randn(2, 5, 6)
    result = prune(randomise(Loop(nn.LSTMCell(8, 12))), (x,))
    found = compile_model(result.module, (x,)).run(x)
    found = found[0] if isinstance(found, tuple | list) else found
    assert torch.allclose(torch.as_tensor(found), result.module(x), atol=1e-5)


def test_a_computed_weight_of_a_cell_is_a_barrier_with_a_reason() -> None:
    class Computed(Loop):
        def forward(self, x: Tensor) -> Tensor:
            hidden, weight = x.new_zeros(2, 12), self.cell.weight_ih * x.mean()
            cell = self.cell
            arguments = (hidden, weight, cell.weight_hh, cell.bias_ih, cell.bias_hh)
            return self.out(torch.gru_cell(self.first(x[:, 0]).relu(), *arguments))

    exactness = Exactness(randomise(Computed(nn.GRUCell(8, 12))), SEQUENCE)
    result = compact_graph(exactness.graph, exactness.example)
    assert "the weights of this gru_cell are computed" in [barrier.reason for barrier in result.barriers]
    assert result.certificate.max_relative < EXACT


@pytest.mark.parametrize("shared", [False, True])
def test_a_layer_whose_weights_have_other_readers_is_a_barrier_with_a_reason(shared: bool) -> None:
    class Layers(nn.Module):
        """A recurrent layer, twice or once."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.layer, self.out = nn.Linear(6, 8), nn.GRU(8, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(self.first(x))[0]
            return self.out(self.layer(y)[0] if shared else y)

    result = assert_exact(randomise(Layers()), SEQUENCE, "M2")
    reasons = [barrier.reason for barrier in result.barriers]
    assert ("gru feeds its hidden state back into itself" in reasons) == shared
    assert shared or "" not in reasons


@pytest.mark.parametrize("kind", ["gru", "lstm", "rnn"])
def test_features_that_no_gate_reads_go(kind: str) -> None:
    cell = CELLS[kind](8, 12)
    read = torch.arange(8) % 2 == 0
    masks = {"cell.weight_ih": read.expand(cell.weight_ih.shape)}
    result = assert_exact(randomise(Loop(cell)), SEQUENCE, masks)
    assert result.module.get_parameter("first.weight").shape == (4, 6)
    assert result.module.get_parameter("cell.weight_ih").shape[1] == 4
