"""State: buffers that a forward pass writes. Compiled code takes them after the inputs, and leaves in them what the next call
is to find.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, OutputKind, OutputSpec, TensorArgument

from ..frontend.base.array_files import parse_npy
from ..frontend.base.errors import CaptureError
from ..frontend.base.files import read_regular
from ..frontend.base.limits import check_limit
from ..frontend.source_line import source_line
from ..frontend.writes import written_places
from .dtypes import tensor_bytes
from .signature import TensorSpec

__all__ = [
    "State",
    "carry_state",
    "described",
    "is_initial",
    "read_states",
    "state_bytes",
    "state_names",
    "write_states",
]

_PREFIX, _SUFFIX = "state", ".npy"

_WRITTEN = (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION)


@dataclass(frozen=True, eq=False)
class State:
    """A buffer that every call reads or writes: what it is called, and what it holds before the first call."""

    name: str
    initial: Tensor

    @property
    def spec(self) -> TensorSpec:
        """Name, shape and dtype."""
        return TensorSpec(self.name, tuple(self.initial.shape), str(self.initial.dtype).removeprefix("torch."))

    @property
    def zero(self) -> bool:
        """Whether it begins with zeros, so that nothing has to be stored of it."""
        return not bool(self.initial.count_nonzero())


def state_bytes(state: Sequence[State]) -> int:
    """Bytes of all of them together."""
    return sum(entry.initial.nbytes for entry in state)


def state_names(state: Sequence[State]) -> str:
    """For messages: ``'cache' and 'calls'``."""
    names = [f"'{entry.name}'" for entry in state]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def described(state: Sequence[State]) -> list[dict[str, Any]]:
    """Name, shape and dtype of each, for reports."""
    return [entry.spec.plain() for entry in state]


def write_states(state: Sequence[State], folder: Path) -> list[dict[str, Any]]:
    """What a manifest says of each buffer: name, shape, dtype, and as ``initial`` the file with its first values, which is
    written to `folder`; None for zeros.
    """
    rows = []
    for number, entry in enumerate(state):
        file = None if entry.zero else f"{_PREFIX}{number}{_SUFFIX}"
        if file is not None:
            np.save(folder / file, entry.initial.numpy(), allow_pickle=False)
        rows.append({**entry.spec.plain(), "initial": file})
    return rows


def is_initial(name: str) -> bool:
    """Whether a file of this name holds what a buffer begins with."""
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


def read_states(rows: Sequence[Mapping[str, Any]], folder: Path) -> tuple[State, ...]:
    """The buffers that a manifest names.

    Raises:
        ValueError: a file does not hold what the manifest says.
    """
    found = []
    for row in rows:
        shape, dtype = tuple(int(extent) for extent in row["shape"]), str(row["dtype"])
        if row["initial"] is None:
            check_limit("array", tensor_bytes(shape, dtype), f"the state '{row['name']}'")
            values = np.zeros(shape, dtype)
        else:
            path = folder / Path(row["initial"]).name
            values = parse_npy(read_regular(path, within=folder), f"cannot read '{path}'")
        if (values.shape, str(values.dtype)) != (shape, dtype):
            raise ValueError(f"'{row['initial']}' does not hold {dtype} {shape}")
        found.append(State(str(row["name"]), torch.from_numpy(np.array(values, order="C").reshape(shape))))
    return tuple(found)


def carry_state(program: ExportedProgram, exported: ExportedProgram) -> tuple[State, ...]:
    """Makes the buffers that a decomposed program writes inputs after its own, and outputs after its own, in place.

    Raises:
        CaptureError: it writes to an input. `exported` is the program as the model was written.
    """
    graph, signature = program.graph_module.graph, program.graph_signature
    output = graph.output_node()
    results = list(zip(signature.output_specs, output.args[0], strict=True))
    for spec, _ in results:
        if spec.kind == OutputKind.USER_INPUT_MUTATION:
            raise CaptureError(_written_input(str(spec.target), exported))
    written = {spec.target: value for spec, value in results if spec.kind in _WRITTEN}
    if not written:
        return ()
    own = [entry for entry in results if entry[0].kind not in _WRITTEN]
    taken = [spec for spec in signature.input_specs if spec.target in written]
    kept = [spec for spec in signature.input_specs if spec.target not in written]
    stored = {**program.state_dict, **program.constants}
    state = tuple(State(str(spec.target), stored[spec.target].detach().clone().contiguous()) for spec in taken)
    signature.input_specs[:] = kept + [InputSpec(InputKind.USER_INPUT, spec.arg, None) for spec in taken]
    left = [written[spec.target] for spec in taken]
    signature.output_specs[:] = [spec for spec, _ in own] + [_given(value) for value in left]
    output.args = ((*(value for _, value in own), *left),)
    for spec in taken:
        program.constants.pop(spec.target, None)  # The importer takes constants without a name for other ones.
    return state


def _given(value: fx.Node) -> OutputSpec:
    return OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(value.name), None)


def _written_input(name: str, exported: ExportedProgram) -> str:
    calls = next((calls for place, calls in written_places(exported.graph).items() if place.name == name), [])
    line = next(filter(None, map(source_line, calls)), None)
    return (
        f"its forward writes to input '{name}'{f' at {line}' if line else ''}, and compiled code leaves inputs as they are;"
        f" write to a copy: {name}.clone()"
    )
