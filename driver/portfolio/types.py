"""The types that a portfolio's networks are computed in, side by side: what each becomes, and what that loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ...backends.machines.targets import Target
from ...frontend.base.errors import InputError
from ...frontend.graph_module import CapturedModule
from ...frontend.quantized_operators import is_quantized
from ...passes.compaction import compact
from ..calibrating import Examples
from ..quantizing import quantize

__all__ = ["TYPES", "Network", "Typed", "check_types", "network_of", "targets_of", "typed"]

TYPES = {"float32": "", "float16": "-fp16", "int8": "-int8"}
"""By name, what is put behind the name of a variant."""


@dataclass(frozen=True, eq=False)
class Network:
    """One source, shrunk.

    Attributes:
        macs: multiply-accumulates of one call.
        certificate: that it computes what the sparse network does; None for one that was quantised before it came here, and
            is taken as it is.
        facts: of the sparse network, for the manifest.
    """

    name: str
    module: CapturedModule
    macs: int
    certificate: Mapping[str, Any] | None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Typed:
    """A network in one type.

    Attributes:
        name: of the variant.
        dtype: of `TYPES`.
        loss: as `reconvene.quantize` measured it: ``decibels``, ``agreement`` and ``examples``; None where nothing was.
    """

    name: str
    dtype: str
    module: CapturedModule
    loss: Mapping[str, Any] | None = None

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """Weights and biases: a quantised layer's are int8 and lie among the buffers."""
        codes = [buffer for buffer in self.module.buffers() if buffer.dtype in (torch.int8, torch.uint8)]
        return (*self.module.parameters(), *codes)

    @property
    def bytes(self) -> int:
        """Of its weights and what goes with them, in its type."""
        tensors = [*self.module.parameters(), *self.module.buffers()]
        halved = self.dtype == "float16"
        return sum(each.nbytes // (2 if halved and each.dtype == torch.float32 else 1) for each in tensors)


def check_types(types: Sequence[str], targets: Sequence[Target], calibration: Examples | None) -> None:
    """Raises InputError if a type is none, no target computes in it, or there is nothing to find ranges on."""
    unknown = [name for name in types if name not in TYPES]
    if unknown:
        raise InputError(f"a variant cannot be computed in '{unknown[0]}'; choose {', '.join(TYPES)}")
    if not types or len(set(types)) < len(types):
        raise InputError("name at least one type, and each once")
    if "float16" in types and not targets_of("float16", targets):
        raise InputError(
            f"none of {', '.join(target.name for target in targets)} computes in float16; leave that type out"
        )
    if "int8" in types and calibration is None:
        raise InputError(
            "ranges for int8 are found on calibration inputs, and there are none; give some as for quantize (--calibration,"
            " or --dataset)"
        )


def targets_of(dtype: str, targets: Sequence[Target]) -> tuple[Target, ...]:
    """Those that compute in a type."""
    return tuple(target for target in targets if dtype != "float16" or target.has_half_floats)


def network_of(name: str, sparse: CapturedModule, inputs: tuple[Any, ...]) -> Network:
    """A sparse network without what its zeros make removable.

    Raises:
        CheckError: the shrunk network differs from the sparse one.
    """
    if is_quantized(sparse):
        macs = _macs(sparse, inputs)
        return Network(name, sparse, macs, None, {"sparse_macs": macs})
    shrunk = compact(sparse, inputs, fold=True)
    assert isinstance(shrunk.module, CapturedModule)
    facts = {"sparse_parameters": shrunk.before.parameters, "sparse_macs": shrunk.before.macs}
    return Network(name, shrunk.module, shrunk.after.macs, asdict(shrunk.certificate), facts)


def typed(network: Network, dtype: str, inputs: tuple[Any, ...], calibration: Examples | None, alone: bool) -> Typed:
    """A network in a type; one that is quantised is in int8, and keeps its name.

    Args:
        alone: whether there is no other type, so that names need not tell them apart.
    """
    name = network.name if alone else network.name + TYPES[dtype]
    if is_quantized(network.module):
        return Typed(network.name, "int8", network.module)
    if dtype != "int8":
        return Typed(name, dtype, network.module)
    made = quantize(network.module, calibration, example_inputs=inputs)
    assert isinstance(made.module, CapturedModule)
    return Typed(name, dtype, made.module, asdict(made.report.network))


def _macs(module: nn.Module, inputs: tuple[Any, ...]) -> int:
    """Multiply-accumulates of a graph that rounds, whose layers are those of a network in float."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return int(counter.get_total_flops()) // 2
