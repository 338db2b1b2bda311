"""Whether rules know of all operands that share an axis: each operand of each operator loses channels on each of its axes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reconvene.driver.api import prune
from reconvene.frontend.base.errors import ReconveneError
from reconvene.frontend.capture import FIXED
from reconvene.passes.compaction import compact
from reconvene.passes.rules import registered

from ..support.models import Exactness, masked_copy, randomise
from ..support.operators import CASES
from ..support.probes import Call, Question, calls_of, probe, probes_of

FAMILIES = sorted({type(registered()[name]).__name__ for name in CASES})
WEIGHTED = ("Convolution", "Recurrent", "RecurrentCell", "TransposedConvolution")
"""They keep all channels where a weight is computed."""
TOGETHER = 16
"""Questions in one graph."""


def calls_of_family(family: str) -> list[Call]:
    """One call of each kind, of all cases of the operators that share a rule."""
    found: dict[object, Call] = {}
    for name, cases in CASES.items():
        if type(registered()[name]).__name__ == family:
            networks = {(case.build, case.shape, case.inputs): case for case in cases}  # Some cases share one.
            for case in list(networks.values())[: 1 if family == "Elementwise" else None]:
                exactness = Exactness(randomise(case.build()), case.example(), FIXED)
                for call in calls_of(exactness.graph, exactness.example, name):
                    found.setdefault(call.kind, call)
    return list(found.values())


def fault(questions: Sequence[Question]) -> str | None:
    """Why a graph of them cannot be compacted."""
    try:
        compact(*probe(questions))
    except ReconveneError as error:
        return str(error)
    return None


@pytest.mark.parametrize("family", FAMILIES)
def test_operands_lose_together_what_they_share(family: str) -> None:
    computed = family in WEIGHTED
    questions = [(call, *asked) for call in calls_of_family(family) for asked in probes_of(call, computed=computed)]
    wrong: list[str] = []
    for start in range(0, len(questions), TOGETHER):
        asked = questions[start : start + TOGETHER]
        told = fault(asked)
        if told is not None:
            alone = [(question, fault([question])) for question in asked]
            named = [f"{call.node.format_node()} {place} {axis}: {why}" for (call, place, axis), why in alone if why]
            wrong += named or [f"{len(asked)} calls together: {told}"]
    assert not wrong, "\n".join(wrong[:5])


class Deformable(nn.Module):
    """Deformable attention: heads lie in the batch of the values, of the places they are read at, and of their weights."""

    def __init__(self, width: int = 16, heads: int = 4, points: int = 2) -> None:
        super().__init__()
        self.heads, self.points = heads, points
        self.value, self.offsets = nn.Linear(width, width), nn.Linear(width, heads * points * 2)
        self.weights, self.out = nn.Linear(width, heads * points), nn.Linear(width, width)

    def forward(self, memory: Tensor, query: Tensor) -> Tensor:
        batch, asked = memory.shape[0], query.shape[1]
        values = self.value(memory).transpose(1, 2).reshape(batch * self.heads, -1, 8, 8)
        places = self.offsets(query).view(batch, asked, self.heads, self.points, 2).tanh().transpose(1, 2).flatten(0, 1)
        read = F.grid_sample(values, places, align_corners=False)
        weights = self.weights(query).view(batch, asked, self.heads, self.points).softmax(-1)
        weights = weights.transpose(1, 2).reshape(batch * self.heads, 1, asked, self.points)
        return self.out((read * weights).sum(-1).view(batch, -1, asked).transpose(1, 2))


def test_heads_of_deformable_attention_go() -> None:
    inputs = (torch.randn(2, 64, 16), torch.randn(2, 5, 16))
    model = randomise(Deformable())
    result = prune(model, inputs)
    assert result.module.value.weight.shape == (8, 16)
    assert result.module.offsets.weight.shape == (8, 16)
    assert result.module.weights.weight.shape == (4, 16)
    with torch.no_grad():
        masked = masked_copy(model, result.plan.masks)(*(x.double() for x in inputs))
        assert float((masked - result.module(*inputs)).abs().max()) < 1e-5
    reasons = result.module.meta["input_sizes"].reasons
    assert any("merged with an axis of dynamic size" in reason for reason in reasons)
    free = {0: torch.export.Dim.DYNAMIC}
    kept = prune(model, inputs, dynamic_shapes=(free, free))
    assert not kept.plan.masks, "whoever asks for a batch that varies gets it, and nothing is zeroed in vain"
