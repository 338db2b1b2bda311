"""The passes in the form pass managers run: ``torch.fx.passes.infra`` can run ours, and ours can stand beside others'.

A pass is a frozen dataclass whose fields are its options. Calling it checks what it `requires` of the module, makes a new
module, and checks what it `ensures` of that one; the module it was given is never changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import fx
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from ..frontend.base.errors import InputError
from .canonicalize import canonicalize
from .compaction import compact
from .fold_batch_norm import fold_batch_norm
from .masks import canonical_and_masked, check_finite
from .outcome import Compaction

__all__ = ["ApplyMasks", "Canonicalize", "Compact", "FoldBatchNorm", "GraphPass", "PassOutcome"]


class PassOutcome(PassResult):
    """``graph_module`` and ``modified`` as pass managers expect, and what the pass did not do, with the reasons."""

    refused: tuple[str, ...]
    compaction: Compaction | None

    def __new__(
        cls, module: fx.GraphModule, modified: bool, refused: tuple[str, ...] = (), compaction: Compaction | None = None
    ) -> PassOutcome:
        outcome = cast("PassOutcome", super().__new__(cls, module, modified))
        outcome.refused = refused
        outcome.compaction = compaction
        return outcome


@dataclass(frozen=True)
class GraphPass(PassBase):
    """A pass from a captured module to a new one."""

    def __call__(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Runs `requires`, `call`, and `ensures` on the result. Raises InputError and CheckError as the pass says."""
        self.requires(graph_module)
        outcome = self.call(graph_module)
        self.ensures(outcome.graph_module)
        return outcome

    def requires(self, graph_module: fx.GraphModule) -> None:
        """The graph is in torch.export's vocabulary: operators and stored tensors only.

        Raises:
            InputError: it is not; the message names the node.
        """
        for node in graph_module.graph.nodes:
            if node.op in ("call_module", "call_method") and node.users:
                raise InputError(
                    f"'{node.name}' is a {node.op}: the graph is not captured; call reconvene.capture first"
                )

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """The pass itself."""
        raise NotImplementedError

    def ensures(self, graph_module: fx.GraphModule) -> None:
        """The new graph is well formed."""
        graph_module.graph.lint()


@dataclass(frozen=True)
class Canonicalize(GraphPass):
    """See `passes.canonicalize`."""

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        result = canonicalize(graph_module)
        return PassOutcome(result, _text(result) != _text(graph_module))


@dataclass(frozen=True)
class ApplyMasks(GraphPass):
    """Zeroes what the masks say: parameter name to boolean tensor, True to keep.

    Raises:
        InputError: a mask does not fit.
    """

    masks: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        return PassOutcome(canonical_and_masked(graph_module, self.masks), bool(self.masks))


@dataclass(frozen=True)
class FoldBatchNorm(GraphPass):
    """See `passes.fold_batch_norm`; for inference."""

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        result = fold_batch_norm(graph_module)
        return PassOutcome(result, len(result.graph.nodes) < len(graph_module.graph.nodes))


@dataclass(frozen=True)
class Compact(GraphPass):
    """Removes what zeros make removable and checks the result; the outcome carries the whole `Compaction`.

    Raises:
        InputError: masks do not fit, or a weight is not finite.
        CheckError: the result differs from the masked module.
    """

    example_inputs: tuple[Any, ...]
    masks: Mapping[str, torch.Tensor] = field(default_factory=dict)
    dtype: torch.dtype | None = None

    def requires(self, graph_module: fx.GraphModule) -> None:
        super().requires(graph_module)
        check_finite(graph_module)

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        found = compact(graph_module, self.example_inputs, self.masks, dtype=self.dtype)
        return PassOutcome(found.module, found.after != found.before, found.refusals, found)


def _text(module: fx.GraphModule) -> list[str]:
    return [node.format_node() or node.name for node in module.graph.nodes]
