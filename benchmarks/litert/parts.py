"""The layers of one kind alone, as a network of their own: what a kind costs where all kinds share their code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from litert.network import Network, Operation

__all__ = ["CONVOLUTIONS", "DEPTHWISE", "OTHERS", "kinds_of_ours", "parts_of"]

CONVOLUTIONS, DEPTHWISE, OTHERS = "convolutions and linear layers", "depthwise convolutions", "everything else"
_KINDS = {"CONV_2D": CONVOLUTIONS, "FULLY_CONNECTED": CONVOLUTIONS, "DEPTHWISE_CONV_2D": DEPTHWISE}


def parts_of(network: Network) -> dict[str, Network]:
    """By kind, its operations; each reads inputs of the network of its own, and gives a result. Padding is of the kind of what
    reads it, since engines pad on the way.
    """
    kinds = {operation: _kind(operation, network) for operation in network.operations}
    return {
        kind: _only([one for one in network.operations if kinds[one] == kind]) for kind in dict.fromkeys(kinds.values())
    }


def _kind(operation: Operation, network: Network) -> str:
    if operation.kind == "PAD":
        return _kind(next(one for one in network.operations if operation.result in one.inputs), network)
    return _KINDS.get(operation.kind, OTHERS)


def _only(operations: list[Operation]) -> Network:
    made = {operation.result for operation in operations}
    read = dict.fromkeys(tensor for operation in operations for tensor in operation.inputs if tensor.data is None)
    inputs = tuple(tensor for tensor in read if tensor not in made)
    results = tuple(operation.result for operation in operations if operation.result not in read)
    return Network(tuple(operations), inputs, results)


_FAMILIES = {
    **dict.fromkeys(("convolution", "integer_convolution", "winograd", "rows", "dots", "integer_sparse"), CONVOLUTIONS),
    **dict.fromkeys(("depthwise", "integer_depthwise", "plane_depthwise"), DEPTHWISE),
}
"""Of our kernels."""


def kinds_of_ours(kernels: Mapping[str, float], beside: float) -> dict[str, int]:
    """Cycles by kind, of our kernels by name; what runs beside kernels is of `OTHERS`."""
    found = Counter({OTHERS: beside})
    for name, cycles in kernels.items():
        found[_FAMILIES.get(name.rpartition("_")[0], OTHERS)] += cycles
    return {kind: round(cycles) for kind, cycles in found.items()}
