"""How much the network's outputs hang on each output channel of a layer: squared derivatives, by random directions.

To second order, an error e of a layer's outputs that has nothing to do with their derivatives changes the network's outputs z
in mean square by  sum over channels c of  (sum over positions of the mean of |dz / dy_c|^2) * mean e_c^2.  For a random
direction v of independent standard normal numbers, the mean of (v . dz / dy)^2 is |dz / dy|^2 (Hutchinson, 1990), so that one
backward pass tells it for all layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from .calibration import takes

__all__ = ["influences"]

_EXAMPLES = 8
"""Of every call, if its batch may be smaller: all values are held for the way back."""
_CALLS = 8
_DIRECTIONS = 2


def influences(
    module: fx.GraphModule, calls: Sequence[tuple[Any, ...]], axes: Mapping[fx.Node, int], seed: int = 0
) -> dict[fx.Node, Tensor]:
    """By call of a layer: one number for each of its channels, float64, at least 0.

    Args:
        module: canonical.
        calls: calibration inputs.
        axes: of every call, which axis its channels are on.
        seed: of the directions.
    """
    generator = torch.Generator().manual_seed(seed)
    found = {node: torch.zeros(1, dtype=torch.float64) for node in axes}
    chosen = list(calls)[:_CALLS]
    for call in chosen:
        tape = _Tape(module, axes)
        outputs = [value for value in tape.outputs(_few(module, call)) if value.requires_grad]
        values = [(node, value) for node, value in tape.values.items() if value.requires_grad]
        for turn in range(_DIRECTIONS if outputs and values else 0):
            directions = [_direction(value.detach(), generator) for value in outputs]
            slopes = torch.autograd.grad(
                outputs, [value for _, value in values], directions, retain_graph=turn + 1 < _DIRECTIONS,
                allow_unused=True, materialize_grads=True,
            )  # fmt: skip
            examples = len(outputs[0]) if outputs[0].dim() else 1
            for (node, _), slope in zip(values, slopes, strict=True):
                by_channel = slope.movedim(axes[node], 0).flatten(1).double().square().sum(1)
                found[node] = found[node] + by_channel / (examples * _DIRECTIONS * len(chosen))
    return found


def _direction(value: Tensor, generator: torch.Generator) -> Tensor:
    """Independent normal numbers, scaled so that a change of the output counts as a share of its variance."""
    spread = value.var(0, correction=0).sum() if value.dim() > 1 and len(value) > 1 else value.square().sum()
    drawn = torch.randn(value.shape, generator=generator, dtype=value.dtype).to(value.device)
    return drawn / spread.sqrt().clamp_min(torch.finfo(value.dtype).tiny ** 0.5)


def _few(module: fx.GraphModule, call: tuple[Any, ...]) -> tuple[Any, ...]:
    """The first examples of a call, if the network takes a smaller batch."""
    leaves, structure = pytree.tree_flatten(call)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if not tensors or any(not leaf.dim() or len(leaf) != len(tensors[0]) for leaf in tensors):
        return call
    few = tuple(
        pytree.tree_unflatten([leaf[:_EXAMPLES] if isinstance(leaf, Tensor) else leaf for leaf in leaves], structure)
    )
    return few if takes(module, few) else call


class _Tape(fx.Interpreter):
    """Runs a graph so that its outputs can be differentiated by the values of some nodes."""

    def __init__(self, module: fx.GraphModule, nodes: Iterable[fx.Node]) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.values: dict[fx.Node, Tensor] = {}
        self._nodes = set(nodes)

    def outputs(self, call: tuple[Any, ...]) -> list[Tensor]:
        """The floating-point outputs of a call."""
        with torch.enable_grad():
            found = self.run(*pytree.tree_leaves(call), enable_io_processing=False)
        return [leaf for leaf in pytree.tree_leaves(found) if isinstance(leaf, Tensor) and leaf.is_floating_point()]

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self._nodes:
            if not value.requires_grad:
                value = value.detach().requires_grad_()
            self.values[n] = value
        return value

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = super().get_attr(target, args, kwargs)
        return value.detach() if isinstance(value, Tensor) else value
