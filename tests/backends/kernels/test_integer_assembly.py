"""The inner loops of kernels for codes: little but products, and no vector on the stack."""

from __future__ import annotations

import re
from typing import Any

import pytest
import tvm

from reconvene.backends.machines.targets import Target, find_target
from tests.backends.kernels.test_assembly import inner_loops, spills
from tests.backends.kernels.test_integer_convolution import x86_target
from tests.support.integers import Layer

LAYERS = {
    "3x3": Layer(64, 64, 28, 28, padding=1),
    "3x3 stride 2": Layer(64, 64, 28, 28, padding=1, stride=2),
    "first 3x3": Layer(3, 32, 32, 32, padding=1),
    "1x1": Layer(96, 96, 14, 14, kernel=1),
    "linear": Layer(512, 1000, 1, 1, kernel=1),
}
PRODUCTS = {"rpi5": "sdot", "rpi4": r"smull|smlal|sadalp|saddlp", "rpi2": r"vmull\.s8|vmlal\.s8|vpadal\.s16"}
SHARE = {"rpi5": 0.55, "rpi4": 0.45, "rpi2": 0.4}
"""Of instructions, that are products."""


def assembly(function: Any, target: Target) -> list[str]:
    module = tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")})
    text = tvm.tirx.build(module, target=tvm.target.Target(target.llvm())).inspect_source("asm")
    return [re.sub(r"\s*(//|@ ).*", "", line).strip() for line in text.split("\n")]


def loops_of(lines: list[str], products: str) -> list[tuple[int, int]]:
    """Inner loops with some products."""

    def count(span: tuple[int, int]) -> int:
        return sum(re.match(rf"({products})\b", line) is not None for line in lines[slice(*span)])

    return [span for span in inner_loops(lines) if count(span) >= 4]


@pytest.mark.parametrize("board", list(PRODUCTS))
@pytest.mark.parametrize("layer", list(LAYERS))
def test_arm(layer: str, board: str) -> None:
    target = find_target(board)
    lines = assembly(LAYERS[layer].case(target.machine).spec.function("kernel"), target)
    spans = loops_of(lines, PRODUCTS[board])
    assert spans
    assert not [line for span in spans for line in spills(lines, span)]
    shares = [
        sum(re.match(rf"({PRODUCTS[board]})\b", line) is not None for line in lines[a : b + 1]) / (b - a)
        for a, b in spans
    ]
    assert max(shares) > SHARE[board]
    if board == "rpi5":  # Every product takes the pixel from a lane.
        used = [line for a, b in spans for line in lines[a : b + 1] if line.startswith("sdot")]
        assert used and all(re.search(r"\.4b\[[0-3]\]$", line) for line in used)


CORES = [("znver4", 16, "vpdpbusd"), ("znver4", 8, "vpdpbusd"), ("haswell", 8, "vpmaddwd")]
CASES = [(*core, layer) for core in CORES for layer in LAYERS if core[0] != "haswell" or layer != "first 3x3"]
"""LLVM writes the window of a first layer out, whose pairs of channels are too many for 16 registers."""


@pytest.mark.parametrize(("cpu", "lanes", "product", "layer"), CASES)
def test_x86(cpu: str, lanes: int, product: str, layer: str) -> None:
    """A step of a pixel is spread over a vector by its load, once at most; weights are loaded once for all pixels."""
    target = x86_target(cpu, lanes)
    case = LAYERS[layer].case(target.machine)
    lines = assembly(case.spec.function("kernel"), target)
    spans = _loops(lines, product)
    assert spans
    for span in spans:
        assert not [line for line in span if re.search(r"%rsp\)", line) and re.search(r"%[xyz]mm", line)]
        spread = sum(line.startswith("vpbroadcastd") and "(" in line for line in span)
        products = sum(line.startswith(product) for line in span)
        tile = case.spec.tile
        assert products % (tile.blocks * tile.pixels) == 0
        assert spread <= products // tile.blocks


def _loops(lines: list[str], product: str) -> list[list[str]]:
    """The inner loops that have some products."""
    labels = {line[:-1]: number for number, line in enumerate(lines) if re.fullmatch(r"\.L\w+:", line)}
    jumps = [(re.match(r"j\w+\s+(\.L\w+)$", line), number) for number, line in enumerate(lines)]
    spans = [(labels[jump[1]], end) for jump, end in jumps if jump and labels.get(jump[1], end) < end]
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    found = [lines[start : end + 1] for start, end in inner]
    return [some for some in found if sum(line.startswith(product) for line in some) >= 4]
