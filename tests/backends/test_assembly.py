"""The inner loops of ARM kernels keep their vectors in registers: nothing of the stack is touched in them."""

from __future__ import annotations

import re

import pytest
import tvm

from reconvene.backends.layer_times import LayerShape, specification
from reconvene.backends.schedules.alternatives import Candidate, winograd_alternatives
from reconvene.backends.targets import find_target

LAYERS = {
    "3x3": (LayerShape((3, 3), (1, 1), (1, 1), 1, 56, 56), 64, 64),
    "3x3 of few pixels": (LayerShape((3, 3), (1, 1), (1, 1), 1, 4, 4), 512, 512),
    "3x3 stride 2": (LayerShape((3, 3), (2, 2), (1, 1), 1, 14, 14), 128, 256),
    "1x1": (LayerShape((1, 1), (1, 1), (1, 1), 1, 14, 14), 96, 576),
    "1x1 of few channels": (LayerShape((1, 1), (1, 1), (1, 1), 1, 112, 112), 16, 96),
    "linear": (LayerShape((1, 1), (1, 1), (1, 1), 1, 1, 1), 1280, 1000),
}
BOARDS = {"rpi3": "cortex-a53", "rpi4": "cortex-a72", "rpi5": "cortex-a76"}


def assembly(candidate: Candidate, board: str) -> list[str]:
    function = candidate.function("kernel").with_attr("global_symbol", "kernel")
    target = find_target(board)
    assert target.cpu == BOARDS[board]
    built = tvm.compile(tvm.IRModule({"kernel": function}), target=tvm.target.Target(target.llvm()))
    library = getattr(built, "mod", built)
    return [line.strip() for line in library.inspect_source("asm").split("\n")]


def inner_loops(lines: list[str]) -> list[list[str]]:
    """Lines between a label and a branch back to it, with no such loop inside."""
    labels = {line[:-1]: number for number, line in enumerate(lines) if re.fullmatch(r"\.L\w+:", line)}
    spans = []
    for number, line in enumerate(lines):
        branch = re.match(r"(?:b|b\.\w+|cbn?z\s+\w+,|tbn?z\s+\w+,\s*#\d+,)\s+(\.L\w+)$", line)
        if branch and labels.get(branch[1], number) < number:
            spans.append((labels[branch[1]], number))
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    return [lines[start : end + 1] for start, end in inner]


def products(loop: list[str]) -> int:
    return sum(line.startswith("fmla") for line in loop)


def check(candidate: Candidate, board: str) -> None:
    loops = [loop for loop in inner_loops(assembly(candidate, board)) if products(loop) >= 8]
    spilled = [line for loop in loops for line in loop if "[sp" in line]
    assert loops and not spilled, spilled
    # Most of what is left are products: loads, addresses and the branch are fewer.
    assert all(products(loop) > 0.5 * len(loop) for loop in loops)


def test_spills_and_loops_are_recognised() -> None:
    text = (
        ".LBB0_1:\nmov w1, w2\n.LBB0_2:\nfmla v0.4s, v1.4s, v2.s[0]\nstr q0, [sp, #16]\nb.ne .LBB0_2\ncbnz x3, .LBB0_1"
    )
    (loop,) = inner_loops(text.split("\n"))
    assert products(loop) == 1 and any("[sp" in line for line in loop)


@pytest.mark.parametrize("board", list(BOARDS))
@pytest.mark.parametrize("layer", list(LAYERS))
def test_direct_convolution(layer: str, board: str) -> None:
    check(Candidate(specification(*LAYERS[layer], find_target(board).machine)), board)


@pytest.mark.parametrize("board", list(BOARDS))
def test_products_of_winograd(board: str) -> None:
    machine = find_target(board).machine
    check(winograd_alternatives(specification(*LAYERS["3x3"], machine), machine, 2)[0], board)
