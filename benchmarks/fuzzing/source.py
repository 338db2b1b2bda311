"""A program as Python that runs on its own: a module, its masks, and the comparison."""

from __future__ import annotations

import math
from typing import Any

from .checking import TOLERANCE
from .program import Call, Input, Program, Ref, Stored

__all__ = ["source"]

_START = """import torch
from torch import nn

from reconvene.frontend.capture import capture
from reconvene.passes.compaction import compact
"""

_INPUTS = """

def inputs(seed):
    generator = torch.Generator().manual_seed(seed)
    return (
{inputs}
    )
"""

_CHECK = """

model = Net().eval()
masks = {{
{masks}
}}
result = compact(capture(model, inputs(0)), inputs(0), masks)
with torch.no_grad():
    for name, kept in masks.items():
        getattr(model, name)[~kept] = 0.0
    torch.manual_seed(0)
    expected = model(*inputs(1))
    torch.manual_seed(0)
    found = result.module(*inputs(1))
for one, other in zip(expected, found, strict=True):
    if not isinstance(one, torch.Tensor):
        assert one == other, f"{{other}} instead of {{one}}"
        continue
    assert one.shape == other.shape, f"shape {{tuple(other.shape)}} instead of {{tuple(one.shape)}}"
    assert one.dtype == other.dtype, f"{{other.dtype}} instead of {{one.dtype}}"
    one, other = one.double(), other.double()
    gap = torch.where((one == other) | (one.isnan() & other.isnan()), 0.0, (one - other).abs())
    largest = float(one[one.isfinite()].abs().max()) if one.isfinite().any() else 0.0
    difference = float(gap.max()) / (largest or 1.0)
    assert difference <= {tolerance}, f"masked and compacted differ by {{difference:.1e}} of the largest output"
"""


def source(program: Program, title: str) -> str:
    """Python that compacts `program` and asserts that nothing changed. `title` becomes its docstring, one line.

    The graph is captured with torch.export, and nothing but torch and this package is needed.
    """
    parts = [f'"""{_one_line(title)}"""\n', _START, "\naten = torch.ops.aten\n" if _uses_aten(program) else ""]
    if any(stored.kind in ("normal", "mean", "variance") for stored in program.stored):
        parts.append(_DRAW)
    if any(mask.axis is not None for mask in program.masks):
        parts.append(_DROP_AXIS)
    if any(mask.axis is None for mask in program.masks):
        parts.append(_DROP_ENTRIES)
    if any(given.mask for given in program.inputs):
        parts.append(_MASK)
    parts.append(_module(program))
    parts.append(_INPUTS.format(inputs="\n".join(f"        {_input(given)}," for given in program.inputs)))
    parts.append(_CHECK.format(masks=_masks(program), tolerance=TOLERANCE))
    return "".join(parts)


_DRAW = '''

def draw(how, seed, *shape):
    """Random float64 numbers, the same for the same seed."""
    return how(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
'''

_DROP_AXIS = '''

def without(axis, dropped, *shape):
    """True everywhere but at some positions of an axis."""
    kept = torch.ones(shape, dtype=torch.bool)
    kept.index_fill_(axis, torch.tensor(dropped), False)
    return kept
'''

_DROP_ENTRIES = '''

def without_entries(dropped, *shape):
    """True everywhere but at some places of the flat tensor."""
    kept = torch.ones(shape, dtype=torch.bool)
    kept.view(-1)[torch.tensor(dropped)] = False
    return kept
'''


_MASK = '''

def mask(shape, seed, generator):
    """All True for seed 0, else with an empty last row."""
    kept = torch.rand(shape, generator=generator) < (0.6 if seed else 1.0)
    if seed:
        kept[-1] = False
    return kept
'''


def _uses_aten(program: Program) -> bool:
    return any(call.operator.startswith("aten.") for call in program.calls)


def _one_line(title: str) -> str:
    return " ".join(title.replace("\\", "/").replace('"', "'").split())


def _module(program: Program) -> str:
    stored = {stored.name for stored in program.stored}
    lines = ["", "", "class Net(nn.Module):"]
    if program.stored:
        lines += ["    def __init__(self):", "        super().__init__()"]
        lines += [f"        {_stored(stored)}" for stored in program.stored]
        lines.append("")
    lines.append(f"    def forward(self, {', '.join(given.name for given in program.inputs)}):")
    lines += [f"        {call.name} = {_call(call, stored)}" for call in program.calls]
    outputs = [*(_text(ref, stored) for ref in program.outputs), *map(repr, program.extra)]
    lines.append(f"        return ({', '.join(outputs)},)")
    return "\n".join(lines) + "\n"


def _stored(stored: Stored) -> str:
    sizes = ", ".join(map(str, (stored.seed, *stored.shape)))
    scale = "" if stored.scale == 1.0 else f" * {stored.scale}"
    if stored.kind == "normal":
        return f"self.{stored.name} = nn.Parameter(draw(torch.randn, {sizes}){scale})"
    generator = f"generator=torch.Generator().manual_seed({stored.seed})"
    value = {
        "index": f"torch.randint(0, {stored.high}, {stored.shape}, {generator})",
        "truth": f"torch.rand({stored.shape}, {generator}) > 0.4",
        "variance": f"draw(torch.rand, {sizes}) + 0.5",
        "mean": f"draw(torch.randn, {sizes}){scale}",
    }[stored.kind]
    line = f'self.register_buffer("{stored.name}", {value})'
    return f"{line}\n        self.{stored.name}[..., 0] = True" if stored.kind == "truth" else line


def _call(call: Call, stored: set[str]) -> str:
    function = call.operator if call.operator.startswith("aten.") else f"torch.ops.{call.operator}"
    arguments = [_text(value, stored) for value in call.args]
    arguments += [f"{key}={_text(value, stored)}" for key, value in call.keywords]
    return f"{function}({', '.join(arguments)})"


def _text(value: Any, stored: set[str]) -> str:
    if isinstance(value, Ref):
        name = f"self.{value.name}" if value.name in stored else value.name
        return name if value.item is None else f"{name}[{value.item}]"
    if isinstance(value, tuple | list):
        return f"[{', '.join(_text(item, stored) for item in value)}]"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value) if not isinstance(value, str) else f'"{value}"'


def _input(given: Input) -> str:
    if given.mask:
        return f"mask({given.shape}, seed, generator)"
    if given.high is None:
        return f"torch.randn({given.shape}, generator=generator, dtype=torch.float64)"
    return f"torch.randint(0, {given.high}, {given.shape}, generator=generator)"


def _masks(program: Program) -> str:
    shapes = {stored.name: stored.shape for stored in program.stored}
    texts: dict[str, list[str]] = {}
    for mask in program.masks:
        shape = ", ".join(map(str, shapes[mask.stored]))
        dropped = list(mask.dropped)
        text = (
            f"without_entries({dropped}, {shape})" if mask.axis is None else f"without({mask.axis}, {dropped}, {shape})"
        )
        texts.setdefault(mask.stored, []).append(text)
    return "\n".join(f'    "{name}": {" & ".join(parts)},' for name, parts in texts.items())
