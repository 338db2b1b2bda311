"""A graph as data: inputs, stored tensors, calls in order, outputs and masks. It can be run, compared and printed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

__all__ = [
    "Call", "Input", "Mask", "Program", "Ref", "Stored", "draws", "evaluate", "input_value", "input_values",
    "mask_tensors", "operator_of", "packet_name", "pruned_of_dead", "refs_in", "stored_values", "writes",
]  # fmt: skip

Tensor = torch.Tensor


@dataclass(frozen=True)
class Ref:
    """A value by its name; `item` is its place where a call gives several."""

    name: str
    item: int | None = None


@dataclass(frozen=True)
class Input:
    """Normal float64 numbers, whole numbers below `high`, or a mask: all True for seed 0, else with an empty last row."""

    name: str
    shape: tuple[int, ...]
    high: int | None = None
    mask: bool = False


@dataclass(frozen=True)
class Stored:
    """A tensor the model owns: `scale` times normal numbers, or as `kind` says; drawn from `seed`.

    Kinds: ``normal`` (a parameter), ``mean`` (a buffer of normal numbers), ``variance`` (a buffer between 0.5 and 1.5),
    ``index`` (a buffer of whole numbers below `high`), ``truth`` (a buffer of booleans, the first of each row True).
    """

    name: str
    shape: tuple[int, ...]
    seed: int
    kind: str = "normal"
    scale: float = 1.0
    high: int = 0


@dataclass(frozen=True)
class Call:
    """``name = torch.ops.<operator>(*args, **keywords)``; lists are tuples here."""

    name: str
    operator: str
    args: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Mask:
    """Zeros in a stored tensor: whole positions of an axis, or entries by their place in the flat tensor (axis None)."""

    stored: str
    axis: int | None
    dropped: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """A graph with its masks. `kind` says how the masks were made."""

    inputs: tuple[Input, ...]
    stored: tuple[Stored, ...]
    calls: tuple[Call, ...]
    outputs: tuple[Ref, ...]
    masks: tuple[Mask, ...] = ()
    kind: str = "none"
    extra: tuple[Any, ...] = ()
    """What comes behind the outputs and is no tensor: None and numbers."""

    @property
    def operators(self) -> tuple[str, ...]:
        """Names without overload of all calls, in order."""
        return tuple(packet_name(call.operator) for call in self.calls)


def packet_name(operator: str) -> str:
    """``aten.add`` for ``aten.add.Tensor``."""
    return operator.rpartition(".")[0]


@cache
def operator_of(name: str) -> Callable[..., Any]:
    """The operator overload called ``namespace.name.overload``."""
    namespace, packet, overload = name.split(".")
    found: Callable[..., Any] = getattr(getattr(getattr(torch.ops, namespace), packet), overload)
    return found


def writes(operator: str) -> bool:
    """Returns if a call of `operator` changes one of its operands."""
    return bool(operator_of(operator)._schema.is_mutable)  # type: ignore[attr-defined]


def draws(operator: str) -> bool:
    """Returns if calls of `operator` may draw random numbers."""
    return torch.Tag.nondeterministic_seeded in operator_of(operator).tags  # type: ignore[attr-defined]


def refs_in(value: Any) -> Iterator[Ref]:
    """The references inside an argument."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from refs_in(item)


def operands(call: Call) -> Iterator[Ref]:
    """The references that a call reads, in order."""
    yield from refs_in(call.args)
    for _, value in call.keywords:
        yield from refs_in(value)


def mapped(value: Any, of: Callable[[Ref], Any]) -> Any:
    """An argument with every reference replaced; tuples become lists, as torch's operators want them."""
    if isinstance(value, Ref):
        return of(value)
    return [mapped(item, of) for item in value] if isinstance(value, tuple | list) else value


def stored_values(program: Program) -> dict[str, Tensor]:
    """The stored tensors before masks."""
    return {stored.name: stored_value(stored) for stored in program.stored}


def stored_value(stored: Stored) -> Tensor:
    """One stored tensor."""
    generator = torch.Generator().manual_seed(stored.seed)
    if stored.kind == "index":
        return torch.randint(0, stored.high, stored.shape, generator=generator)
    if stored.kind == "truth":
        truth = torch.rand(stored.shape, generator=generator) > 0.4
        truth[..., 0] = True
        return truth
    if stored.kind == "variance":
        return torch.rand(stored.shape, generator=generator, dtype=torch.float64) + 0.5
    return torch.randn(stored.shape, generator=generator, dtype=torch.float64) * stored.scale


def input_values(program: Program, seed: int) -> tuple[Tensor, ...]:
    """Random inputs."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(input_value(given, seed, generator) for given in program.inputs)


def input_value(given: Input, seed: int, generator: torch.Generator) -> Tensor:
    """One input."""
    if given.mask:
        kept = torch.rand(given.shape, generator=generator) < (0.6 if seed else 1.0)
        if seed:
            kept[-1] = False
        return kept
    if given.high is None:
        return torch.randn(given.shape, generator=generator, dtype=torch.float64)
    return torch.randint(0, given.high, given.shape, generator=generator)


def mask_tensors(program: Program) -> dict[str, Tensor]:
    """The masks by parameter, True to keep; several masks of one tensor act together."""
    shapes = {stored.name: stored.shape for stored in program.stored}
    masks: dict[str, Tensor] = {}
    for mask in program.masks:
        kept = masks.setdefault(mask.stored, torch.ones(shapes[mask.stored], dtype=torch.bool))
        dropped = torch.tensor(mask.dropped, dtype=torch.int64)
        if mask.axis is None:
            kept.view(-1)[dropped] = False
        else:
            kept.index_fill_(mask.axis, dropped, False)
    return masks


def evaluate(
    program: Program,
    inputs: tuple[Tensor, ...],
    stored: Mapping[str, Any],
    each: Callable[[Any], Any] = lambda value: value,
) -> tuple[Any, ...]:
    """The outputs. `each` is applied to what every call gives."""
    values: dict[str, Any] = dict(stored)
    values.update((given.name, value) for given, value in zip(program.inputs, inputs, strict=True))

    def of(ref: Ref) -> Any:
        value = values[ref.name]
        return value if ref.item is None else value[ref.item]

    torch.manual_seed(0)  # Of what the program draws.
    for call in program.calls:
        keywords = {key: mapped(value, of) for key, value in call.keywords}
        values[call.name] = each(operator_of(call.operator)(*mapped(call.args, of), **keywords))
    return (*(of(ref) for ref in program.outputs), *program.extra)


def pruned_of_dead(program: Program) -> Program:
    """Without calls, inputs, stored tensors and masks that no output needs. One input always stays."""
    needed = {ref.name for ref in program.outputs}
    calls = []
    for call in reversed(program.calls):
        if call.name in needed or writes(call.operator):
            calls.append(call)
            needed.update(ref.name for ref in operands(call))
    stored = tuple(stored for stored in program.stored if stored.name in needed)
    return replace(
        program,
        inputs=tuple(given for given in program.inputs if given.name in needed) or program.inputs[:1],
        stored=stored,
        calls=tuple(reversed(calls)),
        masks=tuple(mask for mask in program.masks if mask.stored in needed),
    )
