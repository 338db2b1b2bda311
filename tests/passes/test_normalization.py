"""Normalisation over channels: zero channels leave a transformer's residual stream, in as many rounds as one likes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reconvene.driver.api import compact, prune
from reconvene.frontend.graph_module import CapturedModule
from reconvene.passes.values import operator_name

from ..support.models import Exactness, randomise, widths


class Encoder(nn.Module):
    """A token, positions and two pre-norm blocks: everything that writes into the residual stream."""

    def __init__(self, norm: type[nn.Module] = nn.LayerNorm, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Linear(6, width)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 6, width))
        self.norms = nn.ModuleList(norm(width) for _ in range(3))
        self.up = nn.ModuleList(nn.Linear(width, 24) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(24, width) for _ in range(2))
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([self.token.expand(x.shape[0], -1, -1), self.embed(x)], 1) + self.position
        for norm, up, down in zip(self.norms, self.up, self.down, strict=False):
            y = y + down(up(norm(y)).relu())
        return self.head(self.norms[2](y)[:, 0])


INPUT = (torch.zeros(2, 5, 6),)


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_the_embedding_width_is_a_group(norm: type[nn.Module]) -> None:
    result = Exactness(randomise(Encoder(norm)), INPUT).check("M2")
    assert widths(result) == {"embed": 8, "up.0": 12, "up.1": 12, "down.0": 8, "down.1": 8, "head": 3}
    assert {name: tuple(value.shape) for name, value in result.module.named_parameters()}["position"] == (1, 6, 8)


def test_a_channel_that_normalisation_does_not_zero_stays() -> None:
    model = randomise(Encoder())
    gone = torch.arange(16) < 4
    masks = {name: (~gone).expand(value.shape) for name, value in model.named_parameters() if value.shape[-1] == 16}
    masks = {name: mask for name, mask in masks.items() if name in ("token", "position")}
    for layer in ("embed", "down.0", "down.1"):
        masks |= {f"{layer}.weight": ~gone[:, None].expand(16, model.get_parameter(f"{layer}.weight").shape[1])}
        masks |= {f"{layer}.bias": ~gone}
    result = Exactness(model, INPUT).check(masks)
    assert widths(result)["embed"] == 16, "the mean is subtracted from a zero as from every other channel"
    group = next(group for group in result.groups if group.name == "token")
    assert (group.asked, group.got) == (4, 0)


def test_rounds_of_pruning_leave_one_normalisation_of_the_first_width() -> None:
    model: nn.Module | CapturedModule = randomise(Encoder()).double().eval()
    inputs = (torch.randn(2, 5, 6, dtype=torch.float64),)
    for left in (8, 4, 2):
        result = prune(model, inputs, method="random", sparsity=0.5)
        again = compact(result.module, inputs)
        names = [operator_name(node) for node in again.module.graph.nodes if node.op == "call_function"]
        assert names.count("aten.constant_pad_nd") == names.count("aten.layer_norm") == 3
        assert len(again.module.graph.nodes) == len(result.module.graph.nodes)
        assert result.module.get_parameter("embed.weight").shape[0] == left
        model = result.module
