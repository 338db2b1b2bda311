"""Functions of one quantised value: whatever they are, 256 codes say all of it, of each channel if these differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from .asking import Asking
from .operators import OPERATORS
from .scheme import Codes

__all__ = ["codes_of_bytes", "codes_of_unsigned", "recoding", "table_of"]

A = torch.ops.aten

POINTWISE = frozenset(
    {
        A.hardswish.default, A.hardswish_.default, A.hardsigmoid.default, A.hardsigmoid_.default, A.silu.default,
        A.silu_.default, A.gelu.default, A.mish.default, A.softplus.default, A.elu.default, A.selu.default, A.celu.default,
        A.log_sigmoid.default, A.relu6.default, A.leaky_relu_.default, A.relu_.default, A.hardtanh_.default,
        A.sigmoid_.default, A.tanh_.default, A.prelu.default, A.to.dtype, A._to_copy.default,
    }
)  # fmt: skip
"""Functions of single values that PyTorch's tags do not name."""

_BY_CHANNEL = frozenset({A.prelu.default, A.batch_norm.default})
"""Functions of single values whose vectors are for the channels, along axis 1."""
_CODES = 256
_MOST_CHANNELS = 1024
"""With a table each."""


@dataclass(frozen=True, eq=False)
class _Chain:
    """What is a function of one quantised value.

    Attributes:
        source: the value; `codes` are those that it is read from, `read`.
        axis: along which it is another function at each place; None where it is the same everywhere.
    """

    source: fx.Node
    codes: Codes
    read: fx.Node
    axis: int | None


def table_of(asking: Asking, node: fx.Node, codes: Codes) -> fx.Node | None:
    """`node` by a table, where it is made of one value, numbers that are always the same and functions of single values."""
    chain = _chain(asking, node)
    if chain is None:
        return None
    values: dict[fx.Node, Tensor] = {chain.source: _given(chain, node.meta["val"].shape)}

    def value(at: fx.Node) -> Tensor:
        constant = asking.constants.value(at)
        if constant is not None:
            return constant
        if at not in values:
            arguments, keywords = map_arg((at.args, at.kwargs), value)
            values[at] = at.target(*arguments, **keywords)  # type: ignore[operator]
        return values[at].clone()

    with torch.no_grad():
        found = value(node)
    table = found.reshape(_CODES) if chain.axis is None else found.movedim(chain.axis, 0).reshape(-1, _CODES)
    return _looked_up(asking, node, chain.read, table, codes, chain.axis or 0)


def recoding(asking: Asking, at: fx.Node, known: tuple[Codes, fx.Node], codes: Codes) -> fx.Node:
    """Known codes as others: as they are where these mean the same."""
    source, node = known
    same = (source.scale, source.zero) == (codes.scale, codes.zero)
    if same and codes.low <= source.low and source.high <= codes.high:
        return node
    return _looked_up(asking, at, node, _every(source), codes)


def codes_of_bytes(asking: Asking, node: fx.Node) -> tuple[Codes, fx.Node] | None:
    """The codes of what is converted from bytes to float32, as images often are: the bytes themselves."""
    if node.target not in (A.to.dtype, A._to_copy.default) or node.meta["val"].dtype != torch.float32:
        return None
    source: Any = node.args[0]
    if source in asking.changed:
        return None
    kind = source.meta["val"].dtype
    if kind == torch.int8:
        return Codes(1.0, 0), source
    if kind != torch.uint8 or asking.constants.value(source) is not None:
        return None
    codes = Codes(1.0, -128)
    return codes, _looked_up(asking, node, source, _every(codes), codes)


def codes_of_unsigned(asking: Asking, node: fx.Node, codes: Codes) -> tuple[Codes, fx.Node] | None:
    """The codes of a dequantise node of bytes that are not made here, as those that go into a graph: as int8."""
    source: Any = node.args[0]
    if source.meta["val"].dtype != torch.uint8 or asking.constants.value(source) is not None:
        return None
    codes = Codes(codes.scale, codes.zero)
    return codes, _looked_up(asking, node, source, _every(codes), codes)


def _looked_up(asking: Asking, at: fx.Node, node: fx.Node, values: Tensor, codes: Codes, axis: int = 0) -> fx.Node:
    """The codes of `values`, which are those of all codes of `node` in order."""
    table = OPERATORS.quantize.default(values.contiguous(), codes.inverse, codes.zero, codes.low, codes.high)
    if node.target is OPERATORS.code_table.default and node.args[0].meta["val"].dtype == torch.uint8:  # type: ignore[union-attr]
        first = asking.constants.value(node.args[1])
        if first is not None and torch.equal(first, torch.arange(-128, 128, dtype=torch.int8)):
            node = node.args[0]  # type: ignore[assignment]
    return asking.emit(at, OPERATORS.code_table.default, node, asking.constants.node(at, table), axis)


def _every(codes: Codes) -> Tensor:
    """The numbers that all codes stand for."""
    return OPERATORS.dequantize.default(torch.arange(-128, 128, dtype=torch.int8), codes.scale, codes.zero)


def _given(chain: _Chain, shape: Sequence[int]) -> Tensor:
    """These numbers, along an axis of their own where channels differ; else as of one channel, which normalisations ask for."""
    if chain.axis is None:
        return _every(chain.codes).view(_CODES, 1)
    sizes = [1] * len(shape)
    sizes[0 if chain.axis else 1] = _CODES
    ones = torch.ones([shape[at] if at == chain.axis else 1 for at in range(len(shape))])
    return _every(chain.codes).view(sizes) * ones


def _chain(asking: Asking, node: fx.Node) -> _Chain | None:
    """The one quantised value that a node is a function of; None where there are several, or it is another function."""
    shape = node.meta["val"].shape
    sources: dict[fx.Node, tuple[Codes, fx.Node]] = {}
    axes: set[int] = set()
    waiting, seen = [node], {node}
    while waiting:
        at = waiting.pop()
        known = asking.known(at) if at is not node else None
        if known is not None:
            sources[at] = known
        elif at in asking.changed or not _is_pointwise(at) or at.meta["val"].shape != shape:
            return None
        else:
            for source in at.all_input_nodes:
                constant = asking.constants.value(source)
                if constant is None and source not in seen:
                    seen.add(source)
                    waiting.append(source)
                elif constant is not None and constant.numel() > 1:
                    axis = _varying(at, constant, len(shape))
                    if axis is None or constant.numel() != shape[axis]:
                        return None
                    axes.add(axis)
    if len(sources) != 1 or len(axes) > 1:
        return None
    source, (codes, read) = next(iter(sources.items()))
    axis = next(iter(axes), None)
    if source.meta["val"].shape != shape or (axis is not None and shape[axis] > _MOST_CHANNELS):
        return None
    return _Chain(source, codes, read, axis)


def _varying(node: fx.Node, constant: Tensor, rank: int) -> int | None:
    """The axis of `node` along which an operand has more than one number: that of channels, 1 or the last."""
    if node.target in _BY_CHANNEL:
        return 1 if constant.dim() == 1 and rank > 1 else None
    axes = [at + rank - constant.dim() for at, extent in enumerate(constant.shape) if extent > 1]
    return axes[0] if len(axes) == 1 and axes[0] in (1, rank - 1) and axes[0] > 0 else None


def _is_pointwise(node: fx.Node) -> bool:
    target: Any = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload) or not node.all_input_nodes:
        return False
    if target is A.batch_norm.default:
        return not node.args[5]
    random = torch.Tag.nondeterministic_seeded in target.tags
    return target in POINTWISE or (torch.Tag.pointwise in target.tags and not random)
