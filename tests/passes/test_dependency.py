"""The dependency view: which channels go together, as groups and as a graph, and what holds them in place."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.capture import capture
from reconvene.passes.compaction import compact

from ..support import topologies
from ..support.models import view_of

IMAGE = (torch.zeros(2, 3, 8, 8),)


def chain() -> nn.Module:
    """Convolution, normalisation, depthwise convolution, pointwise convolution."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1)
    ).eval()


def test_a_group_is_all_that_a_channel_is_made_of_and_read_by() -> None:
    group = view_of(chain(), IMAGE).groups[0]
    assert (group.name, group.size, group.blocks, group.reason) == ("0.weight", 8, 1, None)
    assert group.parameters == (
        "0.weight[0] producer",
        "0.bias[0] producer",
        "1.weight[0] producer",
        "1.bias[0] producer",
        "1.running_mean[0] statistic",
        "1.running_var[0] statistic",
        "3.weight[0] producer",
        "3.bias[0] producer",
        "4.weight[1] consumer",
    )
    assert group.values == ("conv2d", "batch_norm", "relu", "conv2d_1")
    assert all(part.positions.tolist() == [[channel] for channel in range(8)] for part in group.slices)


def test_the_cost_of_a_channel_counts_its_scalars() -> None:
    # 27 weights and a bias, scale and shift, 9 depthwise weights and a bias, 4 weights of the reader.
    assert view_of(chain(), IMAGE).groups[0].cost == 27 + 1 + 2 + 9 + 1 + 4


def test_the_output_holds_the_last_layer() -> None:
    last = view_of(chain(), IMAGE).groups[-1]
    assert (last.name, last.prunable, last.reason) == ("4.weight", False, "the model's output keeps its shape")


def test_branches_of_a_sum_are_one_group() -> None:
    view = view_of(topologies.BranchMasks().eval(), IMAGE)
    group = view.groups[0]
    assert [part.parameter for part in group.slices if part.role == "producer"] == [
        "stem.weight", "stem.bias", "branch.weight", "branch.bias", "norm.weight", "norm.bias",
    ]  # fmt: skip
    assert {part.parameter for part in group.slices if part.role == "consumer"} == {"branch.weight", "head.weight"}


def test_halves_that_are_taken_apart_are_groups_of_their_own() -> None:
    first, second = view_of(topologies.CrossStage().eval(), IMAGE).groups[:2]
    assert (first.name, second.name) == ("first.weight[0:8]", "first.weight[8:16]")
    assert (first.size, second.size) == (8, 8)
    assert first.slices[0].positions[:, 0].tolist() == list(range(8))
    assert second.slices[0].positions[:, 0].tolist() == list(range(8, 16))
    assert "inner.weight[1] consumer" in second.parameters
    assert "inner.weight[1] consumer" not in first.parameters


def test_a_flattened_channel_is_read_by_a_block_of_columns() -> None:
    group = view_of(topologies.LiteralReshape().eval(), IMAGE).groups[0]
    reader = group.slices[-1]
    assert (reader.parameter, reader.axis, reader.role) == ("hidden.weight", 1, "consumer")
    assert reader.positions.shape == (8, 36)
    assert reader.positions[2].tolist() == list(range(72, 108))


def test_a_grouped_convolution_has_blocks() -> None:
    first, grouped = view_of(topologies.Grouped().eval(), IMAGE).groups[:2]
    assert (first.name, first.blocks, grouped.name, grouped.blocks) == ("first.weight", 4, "grouped.weight", 4)


def test_heads_are_the_channels_of_an_attention() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.out = (nn.Linear(12, 12) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (layer(x).view(2, 5, 3, 4).transpose(1, 2) for layer in (self.query, self.key, self.value))
            y = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.out(y.transpose(1, 2).reshape(2, 5, 12))

    group = view_of(Attention(), (torch.zeros(2, 5, 12),)).groups[0]
    assert group.size == 3
    producers = {part.parameter: part for part in group.slices if part.role == "producer"}
    assert set(producers) == {f"{name}.{part}" for name in ("query", "key", "value") for part in ("weight", "bias")}
    assert producers["value.weight"].positions[1].tolist() == [4, 5, 6, 7]


def test_the_graph_holds_classes_and_relations_as_plain_values() -> None:
    graph = view_of(topologies.Grouped().eval(), IMAGE).graph
    labels = {data["label"]: (data["size"], data["frozen"], data["reason"]) for _, data in graph.nodes(data=True)}
    assert labels == {
        "first.weight[1]": (3, True, "the model's input keeps its shape"),
        "first.weight[0]": (16, False, ""),
        "grouped.weight[0]": (16, False, ""),
        "head.weight[0]": (3, True, "the model's output keeps its shape"),
    }
    name = {number: data["label"] for number, data in graph.nodes(data=True)}
    edges = sorted((name[a], name[b], data["kind"], data["node"]) for a, b, data in graph.edges(data=True))
    assert edges == [
        ("first.weight[0]", "grouped.weight[0]", "grouped", "conv2d_1"),
        ("first.weight[0]", "grouped.weight[0]", "mixes", "conv2d_1"),
        ("first.weight[1]", "first.weight[0]", "mixes", "conv2d"),
        ("grouped.weight[0]", "head.weight[0]", "mixes", "conv2d_2"),
    ]
    assert all(data["operator"] == "aten.conv2d" for _, _, data in graph.edges(data=True))


def test_index_maps_are_edges_of_their_kind() -> None:
    kinds = {data["kind"] for _, _, data in view_of(topologies.CrossStage().eval(), IMAGE).graph.edges(data=True)}
    assert kinds == {"gather", "mixes"}
    kinds = {data["kind"] for _, _, data in view_of(topologies.LiteralReshape().eval(), IMAGE).graph.edges(data=True)}
    assert kinds == {"product", "mixes"}


def test_the_graph_is_a_networkx_graph_that_its_tools_take() -> None:
    graph = view_of(topologies.CrossStage().eval(), IMAGE).graph
    assert isinstance(graph, nx.MultiDiGraph)
    assert nx.number_weakly_connected_components(graph) == 1


class Transformed(nn.Module):
    """A Fourier transform along the channels, and a recurrent layer after it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.free, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.fft.fft(self.first(x), dim=1).real
        return self.last(self.free(y).relu())


def test_a_barrier_is_listed_with_its_line_and_what_it_holds() -> None:
    view = view_of(Transformed(), IMAGE)
    (barrier, *_) = [found for found in view.barriers if "fft" in found.operator]
    lines, start = inspect.getsourcelines(Transformed.forward)
    line = start + next(place for place, text in enumerate(lines) if "fft" in text)
    assert barrier.reason == "fft_fft runs over the channel axis"
    assert barrier.source is not None
    assert barrier.source.endswith(f"{Path(__file__).name}:{line}")
    assert barrier.blocks == ("first.weight",)


class Branching(nn.Module):
    """Two layers around a choice, in which a layer runs or none does."""

    def __init__(self, weighs: bool) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.weighs = weighs

    def forward(self, x: Tensor) -> Tensor:
        chosen = self.inner if self.weighs else torch.neg
        return self.last(torch.cond(x.sum() > 0, lambda h: chosen(h), lambda h: h * 2.0, (self.first(x),)))


def test_a_choice_lists_the_weights_that_it_runs_and_none_of_the_values() -> None:
    inputs = (torch.zeros(2, 4),)
    (barrier,) = view_of(Branching(weighs=True), inputs).barriers
    assert barrier.blocks == ("first.weight", "inner.weight")
    (barrier,) = view_of(Branching(weighs=False), inputs).barriers
    assert barrier.blocks == ("first.weight",)


class Placed(nn.Module):
    """Positions are embedded by a table that is given an axis before it is added."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place, self.last = nn.Linear(6, 8), nn.Parameter(torch.ones(5, 8)), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last((self.embed(x) + self.place.unsqueeze(0)).relu())


def test_a_table_that_is_rearranged_and_added_makes_channels() -> None:
    group = view_of(Placed(), (torch.zeros(2, 5, 6),)).groups[0]
    assert group.parameters == (
        "embed.weight[0] producer", "embed.bias[0] producer", "place[1] producer", "last.weight[1] consumer",
    )  # fmt: skip


def test_what_is_beyond_a_barrier_can_still_be_pruned() -> None:
    groups = {group.name: group for group in view_of(Transformed(), IMAGE).groups}
    assert not groups["first.weight"].prunable
    assert groups["free.weight"].prunable


def test_layer_normalisation_over_an_image_says_why_it_holds_its_channels() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.LayerNorm([8, 8, 8]), nn.Conv2d(8, 3, 1))
    view = view_of(model, IMAGE)
    assert view.groups[0].reason == "layer normalisation over several axes needs them whole ('layer_norm' in layer '1')"
    assert [barrier.operator for barrier in view.barriers] == ["aten.layer_norm"]


def test_a_model_without_barriers_lists_none() -> None:
    assert view_of(chain(), IMAGE).barriers == ()


def test_a_bias_that_is_computed_says_so() -> None:
    class Computed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.weight, self.bias = nn.Linear(6, 8), nn.Parameter(torch.ones(3, 8)), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(self.first(x), self.weight, self.bias(x)[0])

    view = view_of(Computed(), (torch.zeros(2, 6),))
    reason = "the bias of aten.linear is computed from other values by aten.select"
    assert reason in {barrier.reason for barrier in view.barriers}


class Sorted(nn.Module):
    """Channels go through an operator that has no rule, or through one that needs them whole without a word of its own."""

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.call = nn.Linear(4, 8), nn.Linear(8, 3), call

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.call(self.first(x)))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda x: x.sort(-1).values, "no rule for aten.sort ('sort' at "),
        (lambda x: x.roll(2, 1), "roll needs this axis whole ('roll' at "),
        (lambda x: x.softmax(-1), "softmax runs over the channel axis ('softmax' at "),
        (lambda x: x.repeat_interleave(torch.tensor([1] * 8), 1), "repeat_interleave needs this axis whole ('"),
    ],
)
def test_what_holds_channels_is_named_with_its_line(call: Callable[[Tensor], Tensor], told: str) -> None:
    model = Sorted(call)
    reason = view_of(model, (torch.randn(2, 4),)).groups[0].reason
    assert reason is not None
    assert reason.startswith(told)
    assert "test_dependency.py:" in reason
    with torch.no_grad():
        model.first.weight[2:5], model.first.bias[2:5] = 0.0, 0.0
    refusals = compact(capture(model, (torch.randn(2, 4),)), (torch.randn(2, 4),)).refusals
    assert [told in refusal and "test_dependency.py:" in refusal for refusal in refusals] == [True]
