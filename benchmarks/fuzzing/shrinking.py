"""From a failing program to a small one that fails in the same way: greedy delta debugging on the list of calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from .program import (
    Call,
    Input,
    Mask,
    Program,
    Ref,
    evaluate,
    input_values,
    operands,
    pruned_of_dead,
    refs_in,
    stored_values,
)

__all__ = ["shrink"]


def shrink(program: Program, fails: Callable[[Program], bool], most: int = 2000) -> Program:
    """A program from which nothing more can be taken while `fails` holds.

    Args:
        program: one for which `fails` holds.
        fails: decides if a smaller program still fails in the same way. It may raise; that counts as no.
        most: how many programs to try at most.
    """
    tried: set[Program] = {program}
    while True:
        for smaller in _smaller(program):
            if smaller in tried:
                continue
            if len(tried) > most:
                return program
            tried.add(smaller)
            if _holds(fails, smaller):
                program = smaller
                break
        else:
            return program


def _holds(fails: Callable[[Program], bool], program: Program) -> bool:
    try:
        return fails(program)
    except Exception:
        return False


def _smaller(program: Program) -> Iterator[Program]:
    """Simpler programs, the largest steps first; not all of them can run."""
    values = _example_values(program)
    for candidate in _candidates(program, values):
        try:
            yield pruned_of_dead(candidate)
        except (KeyError, RuntimeError):
            continue


def _candidates(program: Program, values: dict[str, Any]) -> Iterator[Program]:
    yield from _ending_earlier(program, values)
    if len(program.outputs) > 1:
        for output in program.outputs:
            yield replace(program, outputs=(output,))
    yield from _summed_up(program, values)
    yield from _beginning_later(program, values)
    yield from _without_one_call(program, values)
    yield from _with_fewer_masks(program)
    yield from _without_options(program)


def _ending_earlier(program: Program, values: dict[str, Any]) -> Iterator[Program]:
    """The result of one call as the only output."""
    for place, call in enumerate(program.calls):
        value = values[call.name]
        several = isinstance(value, tuple | list)
        results = tuple(Ref(call.name, item) for item in range(len(value))) if several else (Ref(call.name),)
        if results != program.outputs:
            yield replace(program, calls=program.calls[: place + 1], outputs=results)


def _summed_up(program: Program, values: dict[str, Any]) -> Iterator[Program]:
    """The sum of one result over its channels in place of all that reads it."""
    for place, call in enumerate(program.calls[:-2]):
        value = values[call.name]
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.dim():
            for axis in dict.fromkeys((min(1, value.dim() - 1), value.dim() - 1)):
                end = Call("v0", "aten.sum.dim_IntList", (Ref(call.name), (axis,), False))
                yield replace(program, calls=(*program.calls[: place + 1], end), outputs=(Ref(end.name),))


def _beginning_later(program: Program, values: dict[str, Any]) -> Iterator[Program]:
    """The result of one call as an input instead, the last calls first."""
    for place in reversed(range(len(program.calls))):
        name = program.calls[place].name
        value = values[name]
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            calls = program.calls[:place] + program.calls[place + 1 :]
            yield replace(program, calls=calls, inputs=(*program.inputs, Input(name, tuple(value.shape))))


def _without_one_call(program: Program, values: dict[str, Any]) -> Iterator[Program]:
    """An operand in place of a result; those of the same shape first, the others may still fit what reads them."""
    for alike in (True, False):
        for place in reversed(range(len(program.calls))):
            call = program.calls[place]
            results = [Ref(call.name)]
            if isinstance(values[call.name], tuple | list):
                results = [Ref(call.name, item) for item in range(len(values[call.name]))]
            for operand in dict.fromkeys(operands(call)):
                if all(_alike(_at(values, result), _at(values, operand)) for result in results) == alike:
                    calls = program.calls[:place] + program.calls[place + 1 :]
                    yield _substituted(replace(program, calls=calls), call.name, operand)


def _with_fewer_masks(program: Program) -> Iterator[Program]:
    for place, mask in enumerate(program.masks):
        others = program.masks[:place], program.masks[place + 1 :]
        yield replace(program, masks=others[0] + others[1])
        half = len(mask.dropped) // 2
        for part in (mask.dropped[:half], mask.dropped[half:]) if half else ():
            yield replace(program, masks=(*others[0], Mask(mask.stored, mask.axis, part), *others[1]))


def _without_options(program: Program) -> Iterator[Program]:
    """Biases and the like left out."""
    for place, call in enumerate(program.calls):
        for number, argument in enumerate(call.args):
            if number and isinstance(argument, Ref):
                args = (*call.args[:number], None, *call.args[number + 1 :])
                calls = (*program.calls[:place], replace(call, args=args), *program.calls[place + 1 :])
                yield replace(program, calls=calls)


def _example_values(program: Program) -> dict[str, Any]:
    values: dict[str, Any] = dict(stored_values(program))
    inputs = input_values(program, 0)
    values.update((given.name, value) for given, value in zip(program.inputs, inputs, strict=True))
    results: list[Any] = []

    def keep(value: Any) -> Any:
        results.append(value)
        return value

    with torch.no_grad():
        evaluate(program, inputs, stored_values(program), keep)
    values.update((call.name, value) for call, value in zip(program.calls, results, strict=True))
    return values


def _at(values: dict[str, Any], ref: Ref) -> Any:
    return values[ref.name] if ref.item is None else values[ref.name][ref.item]


def _alike(one: Any, other: Any) -> bool:
    return (
        isinstance(one, torch.Tensor)
        and isinstance(other, torch.Tensor)
        and (one.shape, one.dtype) == (other.shape, other.dtype)
    )


def _substituted(program: Program, name: str, by: Ref) -> Program:
    def of(value: Any) -> Any:
        if isinstance(value, Ref):
            return by if value.name == name else value
        return tuple(of(item) for item in value) if isinstance(value, tuple | list) else value

    calls = tuple(
        Call(call.name, call.operator, of(call.args), tuple((key, of(value)) for key, value in call.keywords))
        for call in program.calls
    )
    return replace(program, calls=calls, outputs=tuple(dict.fromkeys(refs_in(of(program.outputs)))))
