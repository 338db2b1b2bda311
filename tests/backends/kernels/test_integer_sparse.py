"""Convolutions of codes by few weights give the bits of exact integers, and are offered where weights are few."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reconvene.backends.kernels.base import Task, trial_of
from reconvene.backends.kernels.families import candidates
from reconvene.backends.kernels.integer_convolution import steps_of
from reconvene.backends.kernels.integer_sparse import IntegerSparseSpec
from reconvene.backends.machines.targets import Target, find_target
from tests.backends.kernels.test_assembly import inner_loops, spills
from tests.backends.kernels.test_integer_assembly import PRODUCTS, assembly, loops_of
from tests.backends.kernels.test_integer_convolution import X86, x86_target
from tests.support.emulated_instructions import run_replaced
from tests.support.integers import Case, Layer
from tests.support.kernel_programs import Arrays, run_emulated, run_here
from tests.support.tools import needs

LAYERS = [
    Layer(16, 16, 6, 6, zeros=0.8),
    Layer(20, 37, 9, 11, padding=1, zeros=0.9),
    Layer(64, 64, 9, 11, padding=1, stride=2, zero=5, low=5, zeros=0.9),
    Layer(100, 37, 7, 7, kernel=1, zeros=0.9),
    Layer(70, 50, 1, 1, kernel=1, result="float32", zeros=0.9),
    Layer(70, 50, 1, 1, kernel=1, batch=3, zeros=0.9),
    Layer(16, 16, 9, 9, dilation=2, padding=2, zeros=0.9),
    Layer(32, 24, 5, 7, padding=1, batch=2, halo=1, zeros=0.9),
    Layer(18, 30, 6, 6, kernel=5, padding=2, result="residual", zeros=0.9),
    Layer(8, 12, 5, 9, padding=1, tight=True, zeros=0.8),
    Layer(32, 32, 6, 6, zeros=0.995),
]
"""Some blocks of outputs of the last have no weights at all."""


def cases_for(target: Target) -> list[Case]:
    return [layer.case(target.machine, seed) for seed, layer in enumerate(LAYERS)]


def check(cases: list[Case], results: list[Arrays]) -> None:
    assert {type(case.spec) for case in cases} == {IntegerSparseSpec}
    counts = {str(case.layer): case.wrong(arrays) for case, arrays in zip(cases, results, strict=True)}
    assert {layer: count for layer, count in counts.items() if count} == {}


def test_here() -> None:
    target = find_target("host")
    cases = cases_for(target)
    check(cases, run_here([case.spec.function("k") for case in cases], [case.arguments for case in cases], target))


@pytest.mark.parametrize(
    "board",
    [
        pytest.param("rpi5", marks=needs("qemu-aarch64", "aarch64-linux-gnu-g++")),
        pytest.param("rpi4", marks=needs("qemu-aarch64", "aarch64-linux-gnu-g++")),
        pytest.param("rpi2", marks=needs("qemu-arm", "arm-linux-gnueabihf-g++")),
    ],
)
def test_on_emulated_cores(board: str, tmp_path: Path) -> None:
    target = find_target(board)
    cases = cases_for(target)
    functions = [case.spec.function("k") for case in cases]
    check(cases, run_emulated(functions, [case.arguments for case in cases], target, tmp_path))


@needs("llc-22")
@pytest.mark.parametrize("name", ["512 bits", "AVX-VNNI"])
def test_with_instructions_of_other_cores(name: str, tmp_path: Path) -> None:
    cpu, lanes, instruction = X86[name]
    target = x86_target(cpu, lanes)
    cases, names = cases_for(target), set[str]()
    functions, arguments = [case.spec.function("k") for case in cases], [case.arguments for case in cases]
    check(cases, run_replaced(functions, arguments, target, tmp_path, names))
    assert any(instruction in replaced for replaced in names)


def test_few_weights_are_a_candidate_and_many_are_not() -> None:
    machine = find_target("rpi5").machine
    layer = Layer(64, 64, 14, 14, padding=1, zeros=0.9)
    sparse = layer.case(machine).spec
    dense = replace(layer, zeros=0.0).case(machine).spec
    assert dense.vectors == 0 < sparse.vectors < 0.15 * steps_of(dense) * dense.result.blocks
    few = candidates(Task(replace(dense, vectors=sparse.vectors)), machine)
    assert few[0] == dense and min(few, key=lambda spec: spec.cycles(machine)) == sparse
    assert not any(isinstance(spec, IntegerSparseSpec) for spec in candidates(Task(dense), machine))


def test_layers_of_about_as_many_weights_have_one_kernel() -> None:
    machine = find_target("rpi5").machine
    layer = Layer(64, 64, 14, 14, padding=1, zeros=0.9)
    kernels = {layer.case(machine, seed).spec for seed in range(8)}
    assert len({layer.case(machine, seed).arguments[1].tobytes() for seed in range(8)}) == 8
    assert len(kernels) < 6


def test_tables_for_trials_stay_in_the_image() -> None:
    case = Layer(64, 64, 14, 14, padding=1, zeros=0.9).case(find_target("rpi5").machine)
    starts, places = trial_of(case.spec).tables.values()
    assert (
        len(starts) == case.spec.result.blocks + 1 and starts[0] == 0 and starts[-1] == len(places) == case.spec.vectors
    )
    assert places.min() >= 0 and len(np.unique(places)) > len(places) // 4
    view = case.spec.source
    assert places.max() <= (case.spec.blocks - 1) * view.block + 2 * (view.row + view.column)


@pytest.mark.parametrize("board", list(PRODUCTS))
def test_sums_stay_in_registers(board: str) -> None:
    target = find_target(board)
    lines = assembly(Layer(64, 64, 28, 28, padding=1, zeros=0.9).case(target.machine).spec.function("kernel"), target)
    found = loops_of(lines, PRODUCTS[board])
    assert found and set(found) <= set(inner_loops(lines))
    assert not [line for span in found for line in spills(lines, span)]
