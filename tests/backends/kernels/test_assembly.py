"""The inner loops of ARM kernels keep their vectors in registers: none goes to the stack and back."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tvm

from reconvene.backends.choosing.layer_times import LayerShape, specification
from reconvene.backends.graph.nodes import Convolution, Weights
from reconvene.backends.kernels.base import Task
from reconvene.backends.kernels.depthwise import DepthwiseSpec, depthwise_columns, weights_stay
from reconvene.backends.kernels.epilogue import Epilogue, Operand, Step
from reconvene.backends.kernels.gather_family import GatherFamily
from reconvene.backends.kernels.packed_rows import Blocking
from reconvene.backends.kernels.planes import plane_view
from reconvene.backends.kernels.row_zeros import zeros_in_rows
from reconvene.backends.kernels.rows import RowsSpec
from reconvene.backends.kernels.rows_family import RowsFamily
from reconvene.backends.kernels.tiles import Machine
from reconvene.backends.kernels.transposing import TransposeSpec
from reconvene.backends.kernels.winograd_family import WinogradFamily
from reconvene.backends.kernels.zeros import count_groups, entries_of, zeros_in_planes
from reconvene.backends.lowering.layers import planes_task
from reconvene.backends.lowering.layout import dense_view
from reconvene.backends.machines.targets import find_target

LAYERS = {
    "3x3": (LayerShape((3, 3), (1, 1), (1, 1), 1, 56, 56), 64, 64),
    "3x3 of few pixels": (LayerShape((3, 3), (1, 1), (1, 1), 1, 4, 4), 512, 512),
    "3x3 of odd channels": (LayerShape((3, 3), (1, 1), (1, 1), 1, 28, 28), 30, 30),
    "3x3 stride 2": (LayerShape((3, 3), (2, 2), (1, 1), 1, 14, 14), 128, 256),
    "first 3x3": (LayerShape((3, 3), (1, 1), (1, 1), 1, 32, 32), 3, 64),
    "first 3x3 stride 2": (LayerShape((3, 3), (2, 2), (1, 1), 1, 112, 112), 3, 32),
    "first 7x7 stride 2": (LayerShape((7, 7), (2, 2), (1, 1), 1, 112, 112), 3, 64),
    "first 5x5 of one channel": (LayerShape((5, 5), (1, 1), (1, 1), 1, 28, 28), 1, 32),
    "1x1": (LayerShape((1, 1), (1, 1), (1, 1), 1, 14, 14), 96, 576),
    "1x1 of few channels": (LayerShape((1, 1), (1, 1), (1, 1), 1, 112, 112), 16, 96),
    "1x1 of few pixels": (LayerShape((1, 1), (1, 1), (1, 1), 1, 7, 7), 960, 160),
    "linear": (LayerShape((1, 1), (1, 1), (1, 1), 1, 1, 1), 1280, 1000),
    "linear of a batch": (LayerShape((1, 1), (1, 1), (1, 1), 1, 1, 8), 512, 1000),
}
BOARDS = {"rpi2": "cortex-a7", "rpi3": "cortex-a53", "rpi4": "cortex-a72", "rpi5": "cortex-a76"}
CLIPPED = Epilogue((Step("clip", (0.0, 6.0), (Operand("anchor"),)),))


def machine(board: str) -> Machine:
    target = find_target(board)
    assert target.cpu == BOARDS[board]
    return target.machine


def assembly(function: Any, board: str) -> list[str]:
    module = tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")})
    built = tvm.compile(module, target=tvm.target.Target(find_target(board).llvm()))
    library = getattr(built, "mod", built)
    return [re.sub(r"\s*(//|@ ).*", "", line).strip() for line in library.inspect_source("asm").split("\n")]


def inner_loops(lines: list[str]) -> list[tuple[int, int]]:
    """First and last line of each span between a label and a branch back to it, with no such span inside."""
    labels = {line[:-1]: number for number, line in enumerate(lines) if re.fullmatch(r"\.L\w+:", line)}
    spans = []
    for number, line in enumerate(lines):
        branch = re.match(r"(?:b|b\.?\w\w|cbn?z\s+\w+,|tbn?z\s+\w+,\s*#\d+,)\s+(\.L\w+)$", line)
        if branch and labels.get(branch[1], number) < number:
            spans.append((labels[branch[1]], number))
    return [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]


def spills(lines: list[str], span: tuple[int, int]) -> list[str]:
    """Loads and stores of vectors on the stack: by its pointer, or by a register that was made from it."""
    start, end = span
    found = []
    for number in range(start, end + 1):
        access = re.match(r"(?:v?ld|v?st)\w*(?:\.\d+)?\s+\{?\s*[qdsv]\d.*\[(\w+)", lines[number])
        access = access or re.match(r"v(?:ld|st)m\w*\s+(\w+)!?, \{", lines[number])
        if access and (access[1] == "sp" or _from_stack(lines[:number], access[1])):
            found.append(lines[number])
    return found


def _from_stack(before: list[str], register: str) -> bool:
    """Whether the last line that sets `register` takes it from the stack pointer."""
    for line in reversed(before):
        if re.match(rf"\w+\s+{register},", line) and not line.startswith(("cmp", "str", "stp", "stm")):
            return re.match(rf"(?:add|mov)\s+{register}, sp\b", line) is not None
    return False


def arithmetic(lines: list[str], span: tuple[int, int]) -> int:
    """Vector arithmetic in a loop."""
    return sum(
        re.match(r"v?f?(?:mla|fma|mul|add|sub)(?:\.f32)?\s+[vq]\d", line) is not None for line in lines[slice(*span)]
    )


def products(lines: list[str], span: tuple[int, int]) -> int:
    """Vector multiply-adds in a loop."""
    return sum(re.match(r"(?:fmla\s+v|vfma\.f32\s+q)\d", line) is not None for line in lines[slice(*span)])


def checked(function: Any, board: str) -> tuple[list[str], list[tuple[int, int]]]:
    """The code, and its inner loops of some arithmetic, none of which spills."""
    lines = assembly(function, board)
    loops = [span for span in inner_loops(lines) if arithmetic(lines, span) >= 4]
    spilled = [line for span in loops for line in spills(lines, span)]
    assert loops and not spilled, spilled
    return lines, loops


def check_products(function: Any, board: str) -> None:
    """Most of what a loop of products does besides is a vector load, or on 32 bits a vector of equal elements."""
    lines, loops = checked(function, board)
    share = max(products(lines, span) / (span[1] - span[0]) for span in loops)
    assert share > (0.37 if board == "rpi2" else 0.5)


def test_loops_and_spills_are_recognised() -> None:
    text = (
        ".LBB0_1:\nmov w1, w2\n.LBB0_2:\nfmla v0.4s, v1.4s, v2.s[0]\nstr q0, [sp, #16]\nb.ne .LBB0_2\ncbnz x3, .LBB0_1"
    )
    lines = text.split("\n")
    (span,) = inner_loops(lines)
    assert products(lines, span) == arithmetic(lines, span) == 1
    assert spills(lines, span) == ["str q0, [sp, #16]"]


def test_stack_slots_with_a_register_of_their_own_are_recognised() -> None:
    lines = [
        *("add r3, sp, #16", "add r4, r5, #16", ".LBB0_2:", "vfma.f32 q0, q1, q2", "vst1.64 {d0, d1}, [r3:128]"),
        *("vldmia r3, {d0, d1}", "vld1.32 {d2}, [r4]", "bne .LBB0_2"),
    ]
    (span,) = inner_loops(lines)
    assert products(lines, span) == 1
    assert spills(lines, span) == ["vst1.64 {d0, d1}, [r3:128]", "vldmia r3, {d0, d1}"]


@pytest.mark.parametrize("board", list(BOARDS))
@pytest.mark.parametrize("layer", list(LAYERS))
def test_direct_convolution(layer: str, board: str) -> None:
    check_products(specification(*LAYERS[layer], machine(board)).function("kernel"), board)


@pytest.mark.parametrize("board", list(BOARDS))
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("window", [3, 5])
def test_depthwise(window: int, stride: int, board: str) -> None:
    target, width = machine(board), 28
    source = dense_view(1, 8, width * stride, width * stride, target.lanes(), window // 2)
    columns = depthwise_columns(target, width, stride, window**2)
    spec = DepthwiseSpec(
        source=source, result=dense_view(1, 8, width, width, target.lanes(), 0), kernel=(window, window),
        stride=(stride, stride), dilation=(1, 1), padding=(window // 2, window // 2), columns=columns,
        epilogue=replace(CLIPPED, keeps_nans=target.keeps_nans),
        weights_stay=weights_stay(target, columns, window**2),
    )  # fmt: skip
    checked(spec.function("kernel"), board)


@pytest.mark.parametrize("board", list(BOARDS))
@pytest.mark.parametrize("size", [2, 4])
def test_winograd_with_its_transforms(size: int, board: str) -> None:
    task = Task(specification(*LAYERS["3x3"], machine(board)))
    for candidate in WinogradFamily(size).candidates(task, machine(board)):
        check_products(candidate.function("kernel"), board)


@pytest.mark.parametrize("board", list(BOARDS))
@pytest.mark.parametrize("shared", [1, 2, 4, 8])
def test_gathering(shared: int, board: str) -> None:
    """With four filters that share columns, a step loads a vector for four products; with one, for each."""
    random = np.random.default_rng(0)
    kernel = random.standard_normal((64, 64, 3, 3)) * np.repeat(
        random.random((64 // shared, 64, 3, 3)) > 0.8, shared, axis=0
    )
    image = plane_view(1, 64, 28, 28, 1, 29)
    epilogue = replace(CLIPPED, keeps_nans=machine(board).keeps_nans)
    task = planes_task(Convolution(Weights(kernel, np.zeros(64)), padding=(1, 1, 1, 1)), image, image, epilogue)
    specs = [spec for spec in GatherFamily().candidates(task, machine(board)) if not spec.channels_first]
    assert specs[0].height in (shared, 2 * shared)
    lines, loops = checked(specs[0].function("kernel"), board)
    share = max(products(lines, span) / (span[1] - span[0]) for span in loops)
    assert share > {1: 0.3, 2: 0.38, 4: 0.38, 8: 0.3}[shared]


@pytest.mark.parametrize("board", list(BOARDS))
def test_gathering_into_sums_that_wait(board: str) -> None:
    kernel = np.random.default_rng(0).standard_normal((64, 64, 3, 3))
    layer = Convolution(Weights(kernel, np.zeros(64)), padding=(1, 1, 1, 1))
    image = plane_view(1, 64, 28, 28, 1, 29)
    task = planes_task(layer, image, image, Epilogue())
    task = replace(task, sparsity=zeros_in_planes(layer, [Blocking(4, 72)]))
    checked(GatherFamily().candidates(task, machine(board))[0].function("kernel"), board)


@pytest.mark.parametrize("board", list(BOARDS))
@pytest.mark.parametrize(("shared", "pixels"), [(4, 1), (16, 1), (32, 1), (16, 4)])
def test_rows_of_few_weights(shared: int, pixels: int, board: str) -> None:
    """Every sum stays in its register: of groups of one vector to eight, of one pixel and several, and where sums wait."""
    target = machine(board)
    random = np.random.default_rng(0)
    kernel = random.standard_normal((64, 64, 1, 1)) * np.repeat(
        random.random((64 // shared, 64, 1, 1)) > 0.8, shared, 0
    )
    layer = Convolution(Weights(kernel, np.zeros(64)))
    task = Task(specification(LayerShape((1, 1), (1, 1), (1, 1), 1, 1, pixels), 64, 64, target))
    made = RowsFamily().candidates(replace(task, sparsity=zeros_in_rows(layer, target.lanes())), target)
    groups = [spec for spec in made if isinstance(spec, RowsSpec)]
    # Half of a Cortex-A7's registers are too few for sums of 32 outputs and what they are made from.
    wanted = min(shared, 16) if board == "rpi2" else shared
    assert any(spec.count.blocking == Blocking(wanted, 64, in_order=True) for spec in groups)
    for spec in groups:
        checked(spec.function("kernel"), board)
    lists = count_groups(entries_of(layer), Blocking(2 * target.lanes(), 16))
    lines = assembly(replace(groups[0], count=lists, columns=1).function("kernel"), board)
    found = [span for span in inner_loops(lines) if products(lines, span)]
    assert found and not [line for span in found for line in spills(lines, span)]


@pytest.mark.parametrize("board", list(BOARDS))
def test_rows_one_after_the_other(board: str) -> None:
    kernel = np.random.default_rng(0).standard_normal((64, 64, 1, 1))
    kernel[np.random.default_rng(1).random(kernel.shape) < 0.9] = 0
    target = machine(board)
    zeros = zeros_in_rows(Convolution(Weights(kernel, np.zeros(64))), target.lanes())
    assert zeros is not None
    task = Task(specification(*LAYERS["linear"], target), replace(zeros, counts=()))
    (spec,) = RowsFamily().candidates(task, target)
    lines = assembly(spec.function("kernel"), board)
    found = [span for span in inner_loops(lines) if products(lines, span)]
    assert found and not [line for span in found for line in spills(lines, span)]


@pytest.mark.parametrize("board", list(BOARDS))
def test_transposing(board: str) -> None:
    """A square of four vectors stays in registers."""
    blocks, planes = dense_view(1, 8, 28, 28, machine(board).lanes(), 1), plane_view(1, 32, 28, 28, 1, 29)
    for spec in (TransposeSpec(blocks, planes, 32), TransposeSpec(planes, blocks, 32)):
        lines = assembly(spec.function("kernel"), board)
        assert not [line for span in inner_loops(lines) for line in spills(lines, span)]
