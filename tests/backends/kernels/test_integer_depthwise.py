"""Depthwise convolutions of codes give the bits of exact integers, with the instructions of every machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reconvene.backends.kernels.depthwise import DepthwiseSpec
from reconvene.backends.kernels.integer_depthwise import IntegerDepthwiseSpec
from reconvene.backends.machines.targets import Target, find_target
from tests.backends.kernels.test_integer_convolution import X86, x86_target
from tests.support.emulated_instructions import run_replaced
from tests.support.integers import Case, Layer
from tests.support.kernel_programs import Arrays, run_emulated, run_here
from tests.support.tools import needs

SHIFTED = {"padding": 1, "zero": 5, "low": 5, "high": 100}


def depthwise(channels: int, height: int, width: int, **others: object) -> Layer:
    return Layer(channels, channels, height, width, groups=channels, **others)  # type: ignore[arg-type]


LAYERS = [
    depthwise(16, 6, 6),
    depthwise(37, 9, 11, padding=1),
    depthwise(20, 13, 15, stride=2, **SHIFTED),
    depthwise(24, 13, 13, kernel=5, padding=2),
    depthwise(24, 14, 14, kernel=5, padding=2, stride=2),
    depthwise(9, 12, 12, kernel=7, padding=3),
    depthwise(8, 15, 15, kernel=7, padding=3, stride=2),
    depthwise(8, 7, 7, padding=1, batch=2, halo=1),
    depthwise(40, 7, 7, padding=1, result="residual"),
    depthwise(16, 6, 6, padding=1, numbers="extreme"),
    depthwise(12, 5, 5, result="float32"),
    depthwise(8, 10, 10, padding=1, stride=3),
    depthwise(8, 6, 6, padding=1, largest_scale=True),
    depthwise(4, 5, 5, kernel=1),
]
APART = depthwise(8, 9, 9, dilation=2, padding=2)
"""Its windows have no neighbouring pixels."""


def cases_for(target: Target) -> list[Case]:
    return [layer.case(target.machine, seed) for seed, layer in enumerate([*LAYERS, APART])]


def check(cases: list[Case], results: list[Arrays]) -> None:
    assert {type(case.spec) for case in cases[:-1]} == {IntegerDepthwiseSpec} and type(cases[-1].spec) is DepthwiseSpec
    counts = {str(case.layer): case.wrong(arrays) for case, arrays in zip(cases, results, strict=True)}
    assert {layer: count for layer, count in counts.items() if count} == {}


def test_here() -> None:
    target = find_target("host")
    cases = cases_for(target)
    check(cases, run_here([case.spec.function("k") for case in cases], [case.arguments for case in cases], target))


def test_a_wrong_code_is_noticed() -> None:
    target = find_target("host")
    case = LAYERS[0].case(target.machine)
    (arrays,) = run_here([case.spec.function("k")], [case.arguments], target)
    assert case.wrong(arrays) == 0
    arrays[case.place][case.view.start] ^= 1
    assert case.wrong(arrays) == 1


@pytest.mark.parametrize(
    ("board", "dot"),
    [
        pytest.param("rpi5", "sdot", marks=needs("qemu-aarch64", "aarch64-linux-gnu-g++")),
        pytest.param("rpi4", "sadalp", marks=needs("qemu-aarch64", "aarch64-linux-gnu-g++")),
        pytest.param("rpi2", "vpadal", marks=needs("qemu-arm", "arm-linux-gnueabihf-g++")),
    ],
)
def test_on_emulated_cores(board: str, dot: str, tmp_path: Path) -> None:
    target = find_target(board)
    cases = cases_for(target)
    assert {case.spec.dot for case in cases[:-1]} == {dot}
    functions = [case.spec.function("k") for case in cases]
    check(cases, run_emulated(functions, [case.arguments for case in cases], target, tmp_path))


@needs("llc-22")
@pytest.mark.parametrize("name", ["512 bits", "AVX-VNNI", "128 bits in pairs"])
def test_with_instructions_of_other_cores(name: str, tmp_path: Path) -> None:
    cpu, lanes, instruction = X86[name]
    cases, names = cases_for(x86_target(cpu, lanes)), set[str]()
    functions, arguments = [case.spec.function("k") for case in cases], [case.arguments for case in cases]
    check(cases, run_replaced(functions, arguments, x86_target(cpu, lanes), tmp_path, names))
    assert any(instruction in replaced for replaced in names)


def test_one_column_of_outputs_has_no_pairs() -> None:
    machine = find_target("rpi4").machine
    assert type(depthwise(8, 3, 3).case(machine).spec) is DepthwiseSpec


def test_nothing_is_read_behind_the_buffer() -> None:
    """Windows at the end of the last row, of an image without a border and of rows with nothing behind them."""
    layer = depthwise(8, 6, 6)
    machine = find_target("rpi5").machine
    assert type(layer.case(machine).spec) is IntegerDepthwiseSpec
    assert type(replace(layer, tight=True).case(machine).spec) is DepthwiseSpec
