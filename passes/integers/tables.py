"""Functions of one quantised value: whatever they are, 256 codes say all of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from .asking import Asking
from .operators import OPERATORS
from .scheme import Codes

__all__ = ["recoding", "table_of"]

A = torch.ops.aten

POINTWISE = frozenset(
    {
        A.hardswish.default, A.hardswish_.default, A.hardsigmoid.default, A.hardsigmoid_.default, A.silu.default,
        A.silu_.default, A.gelu.default, A.mish.default, A.softplus.default, A.elu.default, A.selu.default, A.celu.default,
        A.log_sigmoid.default, A.relu6.default, A.leaky_relu_.default, A.relu_.default, A.hardtanh_.default,
        A.sigmoid_.default, A.tanh_.default,
    }
)  # fmt: skip
"""Functions of single values that PyTorch's tags do not name."""

_EVERY = 256


def table_of(asking: Asking, node: fx.Node, codes: Codes) -> fx.Node | None:
    """`node` by a table, where it is made of one value, literal numbers and functions of single values."""
    chain = _chain(asking, node)
    if chain is None:
        return None
    source, known = chain
    values: dict[fx.Node, Tensor] = {source: _every(known[0])}

    def value(at: fx.Node) -> Tensor:
        constant = asking.constants.value(at)
        if constant is not None:
            return constant
        if at not in values:
            arguments, keywords = map_arg((at.args, at.kwargs), value)
            values[at] = at.target(*arguments, **keywords)  # type: ignore[operator]
        return values[at].clone()

    with torch.no_grad():
        return _looked_up(asking, node, known[1], value(node), codes)


def recoding(asking: Asking, at: fx.Node, known: tuple[Codes, fx.Node], codes: Codes) -> fx.Node:
    """Known codes as others: as they are where these mean the same."""
    source, node = known
    same = (source.scale, source.zero) == (codes.scale, codes.zero)
    if same and codes.low <= source.low and source.high <= codes.high:
        return node
    return _looked_up(asking, at, node, _every(source), codes)


def _looked_up(asking: Asking, at: fx.Node, node: fx.Node, values: Tensor, codes: Codes) -> fx.Node:
    table = OPERATORS.quantize.default(values, codes.inverse, codes.zero, codes.low, codes.high)
    return asking.emit(at, OPERATORS.code_table.default, node, asking.constants.node(at, table))


def _every(codes: Codes) -> Tensor:
    """The numbers that all codes stand for."""
    return OPERATORS.dequantize.default(torch.arange(-128, 128, dtype=torch.int8), codes.scale, codes.zero)


def _chain(asking: Asking, node: fx.Node) -> tuple[fx.Node, tuple[Codes, fx.Node]] | None:
    """The one quantised value that a node is a function of; None where there are several, or it is another function."""
    shape = node.meta["val"].shape
    sources: dict[fx.Node, tuple[Codes, fx.Node]] = {}
    waiting, seen = [node], {node}
    while waiting:
        at = waiting.pop()
        known = asking.known(at) if at is not node else None
        if known is not None:
            sources[at] = known
        elif _is_number(asking, at):
            continue
        elif not _is_pointwise(at) or at.meta["val"].shape != shape or not at.all_input_nodes:
            return None
        else:
            more = [source for source in at.all_input_nodes if source not in seen]
            seen.update(more)
            waiting.extend(more)
    if len(sources) != 1:
        return None
    source, known = next(iter(sources.items()))
    return (source, known) if source.meta["val"].shape == shape else None


def _is_number(asking: Asking, node: fx.Node) -> bool:
    constant = asking.constants.value(node)
    return constant is not None and constant.numel() == 1


def _is_pointwise(node: fx.Node) -> bool:
    target: Any = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
        return False
    random = torch.Tag.nondeterministic_seeded in target.tags
    return target in POINTWISE or (torch.Tag.pointwise in target.tags and not random)
