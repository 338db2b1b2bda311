"""How good a network is with some of its channels gone, before they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, fx

from ...frontend.graph_module import cloned
from ...passes.memory_order import arrange, best_order
from ..training.hardware import Hardware
from ..training.objective import Forward
from ..training.sources import Source
from ..training.tasks import Measure

__all__ = ["Judge"]


class Judge:
    """Runs a copy of a network on items, with what masks leave out set to zero: what the smaller network computes."""

    def __init__(self, module: fx.GraphModule, machine: Hardware, measure: Measure) -> None:
        self._module = cloned(module).to(torch.device(machine.device)).eval()
        self._forward = Forward(machine, best_order(self._module))
        self._measure = measure
        arrange(self._module, self._forward.order)
        self._tensors = dict([*self._module.named_parameters(), *self._module.named_buffers()])

    def __call__(
        self, source: Source, masks: Mapping[str, Tensor] | None = None, values: Mapping[str, Tensor] | None = None
    ) -> float:
        """The metric's mean over the items, as accuracy 0..1; masks are by parameter name, True to keep, and values of other
        stored tensors, such as statistics of normalisation, stand for those that the network has.
        """
        total, items = 0.0, 0
        with torch.inference_mode(), self._masked(masks or {}, values or {}):
            for batch in source.plain():
                total += self._measure.total(self._forward.outputs(self._module, batch), batch)
                items += batch.count
        return total / items

    @contextmanager
    def _masked(self, masks: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Iterator[None]:
        before = {name: self._tensors[name].detach().clone() for name in (*masks, *values)}
        try:
            for name, value in values.items():
                self._tensors[name].detach().copy_(value)
            for name, mask in masks.items():
                self._tensors[name].detach().mul_(mask.to(before[name].device))
            yield
        finally:
            for name, value in before.items():
                self._tensors[name].detach().copy_(value)
